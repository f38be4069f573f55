"""How often a hub asks its log, to the last question: each is a statement of the database."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from django_eventstream.hub.hub import Hub
from tests.unit.test_convoy import Outlet, offer, together, until
from tests.unit.test_hub import OPTIONS, MemoryLog, in_a_loop, numbers

QUIET = replace(OPTIONS, poll_seconds=3_600, window_bytes=40_000, backlog_bytes=20_000)
"""Nothing is asked for but by clients and hints, and a page has all that these tests have."""


def counting(stored: int):
    """Runs a test with a log of so many events on channel `a`, and a hub that is at work already.

    One that begins asks again for the permissions of its first clients, which start as they come.
    """

    def decorate(test):
        def run() -> None:
            async def main() -> None:
                log = MemoryLog()
                for _ in range(stored):
                    log.append("a")
                hub = Hub(log, QUIET)
                first = Outlet(hub, "another")
                await until(lambda: first.messages)
                log.questions = log.reads = 0
                await test(log, hub)

            asyncio.run(main())

        run.__doc__, run.__name__ = test.__doc__, test.__name__
        return run

    return decorate


async def settled(*clients: Outlet, at: int) -> None:
    await until(lambda: all(client.cursor == f"a:{at}" for client in clients))
    for _ in range(20):  # turns of the loop, in which a second read would begin
        await asyncio.sleep(0)


@in_a_loop
async def test_a_hub_that_begins_asks_one_question_and_reads_nothing(log, hub):
    for _ in range(5):
        log.append("a")
    hub = Hub(log, QUIET)
    await settled(Outlet(hub, "a"), at=5)
    assert (log.questions, log.reads) == (1, 0)


@counting(stored=5)
async def test_whoever_comes_together_is_asked_for_together(log, hub):
    await settled(*(Outlet(hub, "a") for _ in range(50)), at=5)
    assert (log.questions, log.reads) == (1, 0)
    await settled(Outlet(hub, "a", cursor="a:5"), at=5)
    assert (log.questions, log.reads) == (1, 0), "its place is known"
    await settled(Outlet(hub, "a"), at=5)
    assert (log.questions, log.reads) == (2, 0)


@counting(stored=5)
async def test_an_event_that_is_passed_on_is_not_read(log, hub):
    clients = [Outlet(hub, "a") for _ in range(50)]
    await together(*clients)
    for _ in range(10):
        offer(log, hub)
    await settled(*clients, at=15)
    assert (log.questions, log.reads) == (1, 0)


@counting(stored=5)
async def test_an_event_that_is_only_spoken_of_is_read_once_for_all(log, hub):
    clients = [Outlet(hub, "a") for _ in range(50)]
    await together(*clients)
    for last in range(6, 16):
        event = log.append("a")
        for _ in range(3):
            hub.hint("a", event.id)
        await settled(*clients, at=last)
        assert (log.questions, log.reads) == (1, last - 5)
    assert all(client.data == numbers(6, 15) for client in clients)


@counting(stored=5)
async def test_events_that_come_close_together_are_read_together(log, hub):
    clients = [Outlet(hub, "a") for _ in range(50)]
    await together(*clients)
    for _ in range(9):
        hub.hint("a", log.append("a").id)
    await settled(*clients, at=14)
    assert (log.questions, log.reads) == (1, 1)


@counting(stored=5)
async def test_what_is_spoken_of_during_a_read_costs_one_more(log, hub):
    client = Outlet(hub, "a")
    await until(lambda: client.messages)
    read = log.read

    async def and_another(*arguments):
        page = await read(*arguments)
        log.read = read
        for _ in range(3):
            hub.hint("a", log.append("a").id)
        return page

    log.read = and_another
    hub.hint("a", log.append("a").id)
    await settled(client, at=9)
    assert (log.questions, log.reads) == (1, 2)
    assert client.data == numbers(6, 9)


@counting(stored=5)
async def test_what_is_spoken_of_during_a_read_that_finds_nothing_is_read_next(log, hub):
    client = Outlet(hub, "a")
    await until(lambda: client.messages)
    read = log.read

    async def and_two_come(*arguments):
        page = await read(*arguments)
        log.read = read
        log.append("a")
        hub.hint("a", log.append("a").id)
        return page

    log.read = and_two_come
    hub.hint("a", 6)
    await settled(client, at=7)
    assert log.reads == 2
    assert client.data == ["6", "7"]


@counting(stored=5)
async def test_one_hint_of_more_than_a_page_is_enough(log, hub):
    client = Outlet(hub, "a")
    await until(lambda: client.messages)
    for _ in range(30):
        log.append("a")
    hub.hint("a", 35)
    await settled(client, at=35)
    assert log.reads == 2
    assert client.data == numbers(6, 35)


@pytest.mark.parametrize("behind", [1, 7, 9])
def test_whoever_comes_back_is_read_for_once_and_the_next_one_not_at_all(behind):
    @counting(stored=30)
    async def check(log, hub):
        last = 30 - behind
        crowd = [Outlet(hub, "a", cursor=f"a:{last}") for _ in range(20)]
        await settled(*crowd, at=30)
        assert log.reads == 1
        again = [Outlet(hub, "a", cursor=f"a:{last}"), Outlet(hub, "a", cursor="a:29")]
        await settled(*again, at=30)
        assert (log.questions, log.reads) == (1, 1)
        assert all(client.data == numbers(last + 1, 30) for client in [*crowd, again[0]])

    check()


@counting(stored=30)
async def test_of_two_pages_each_is_read_once_for_a_crowd(log, hub):
    """The first one is small, because nobody knows how large events are."""
    crowd = [Outlet(hub, "a", cursor="a:0") for _ in range(20)]
    await settled(*crowd, at=30)
    assert (log.questions, log.reads) == (1, 2)
    assert all(client.data == numbers(1, 30) for client in crowd)


@counting(stored=5)
async def test_a_hint_of_what_the_log_does_not_have_costs_one_read(log, hub):
    client = Outlet(hub, "a")
    await until(lambda: client.messages)
    hub.hint("a", 99)
    await settled(client, at=5)
    assert log.reads == 1
    hub.hint("a", log.append("a").id)
    await settled(client, at=6)
    assert log.reads == 2


@in_a_loop
async def test_the_regular_question_leads_to_no_read_while_there_is_nothing_new(log, hub):
    log.append("a")
    client = Outlet(hub, "a", cursor="a:0")
    await settled(client, at=1)
    reads, questions = log.reads, log.questions
    await until(lambda: log.questions > questions + 5)
    assert log.reads == reads == 1
