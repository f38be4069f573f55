"""All windows of a hub have one budget, and each connection its own, whatever clients do."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from unittest import mock

from django_eventstream.events import Event
from django_eventstream.hub import convoy
from django_eventstream.hub.channel import PAGES_IN_WINDOW
from django_eventstream.hub.hub import Hub
from django_eventstream.hub.window import FRAME_BYTES
from tests.unit.test_convoy import Outlet, offer, until
from tests.unit.test_hub import OPTIONS, MemoryLog, numbers

BUDGET = 20_000
LIMITED = replace(OPTIONS, poll_seconds=60, total_window_bytes=BUDGET)
"""Five windows that are full."""


def with_budget(test):
    def run() -> None:
        async def main() -> None:
            log = MemoryLog()
            await test(log, Hub(log, LIMITED))

        asyncio.run(main())

    run.__doc__, run.__name__ = test.__doc__, test.__name__
    return run


def kept(hub: Hub) -> int:
    """Bytes of all windows, of which none is forgotten in the books."""
    held = [*hub._channels.values(), *hub._loose_channels.values()]
    windows = [channel.window for channel in held]
    count = sum(
        frame.size for window in windows for frame in window.since(window.first_id - 1) or ()
    )
    assert count == hub.statistics().window_bytes
    return count


async def caught_up(clients: list[Outlet], last: int) -> None:
    await until(lambda: all(client.cursor.endswith(f":{last}") for client in clients))


@with_budget
async def test_many_channels_keep_no_more_than_few(log, hub):
    """Three hundred streams on channels of their own kept 351 MB, which nobody needed."""
    names = [f"c{number}" for number in range(100)]
    clients = [Outlet(hub, name) for name in names]
    await until(lambda: all(client.messages for client in clients))
    reads, most = log.reads, 0
    for turn in range(1, 21):
        for name in names:
            offer(log, hub, channel=name)
            await asyncio.sleep(0)  # its client takes it
            most = max(most, kept(hub))
        await caught_up(clients, turn)
    assert BUDGET // 2 < most <= BUDGET
    assert log.reads == reads, "nobody is behind, so nobody needs what was released"
    assert all(client.data == numbers(1, 20) for client in clients)


@with_budget
async def test_whoever_replays_many_channels_fills_no_more_than_the_budget(log, hub):
    """Thirty connections that named 300 channels added 80 MB."""
    names = [f"c{number}" for number in range(50)]
    for name in names:
        for _ in range(20):
            log.append(name)
    clients = [Outlet(hub, name, cursor=f"{name}:0") for name in names]
    await caught_up(clients, 20)
    assert BUDGET // 2 < kept(hub) <= BUDGET
    assert all(client.data == numbers(1, 20) for client in clients)


@with_budget
async def test_a_window_that_somebody_needs_is_released_last(log, hub):
    slow, others = Outlet(hub, "slow"), [Outlet(hub, f"c{number}") for number in range(50)]
    await until(lambda: all(client.messages for client in [slow, *others]))
    slow.is_slow = True
    offer(log, hub, channel="slow")
    await asyncio.sleep(0)  # it is busy with this one
    offer(log, hub, 9, channel="slow")
    for _ in range(20):
        for number in range(50):
            offer(log, hub, channel=f"c{number}")
            await asyncio.sleep(0)  # its client takes it
    await caught_up(others, 20)
    reads = log.reads
    slow.wake_up()
    await caught_up([slow], 10)
    assert log.reads == reads
    assert slow.data == numbers(1, 10)
    kept(hub)


@with_budget
async def test_if_everybody_is_behind_the_log_is_read_and_nothing_is_lost(log, hub):
    clients = [Outlet(hub, f"c{number}") for number in range(50)]
    await until(lambda: all(client.messages for client in clients))
    for client in clients:
        client.is_slow = True
    for _ in range(20):
        for number in range(50):
            offer(log, hub, channel=f"c{number}")
        await asyncio.sleep(0)
    assert kept(hub) <= BUDGET
    assert log.reads == 0
    for client in clients:
        client.wake_up()
    await caught_up(clients, 20)
    assert all(client.data == numbers(1, 20) for client in clients)
    assert 0 < log.reads <= 50 * 6, "a page is read once"
    assert not any(client.of_type("stream-reset") for client in clients)


@with_budget
async def test_what_nobody_stores_is_released_last_of_all_and_never_in_silence(log, hub):
    lost = Outlet(hub, loose=("loose",))
    stored = [Outlet(hub, f"c{number}") for number in range(50)]
    await until(lambda: all(client.messages for client in [lost, *stored]))
    for client in [lost, *stored]:
        client.is_slow = True
    events = [Event("loose", "message", str(number)) for number in range(10)]
    hub.offer(events[:5])
    await asyncio.sleep(0)  # it is busy with these
    hub.offer(events[5:])
    for _ in range(20):
        for number in range(50):
            offer(log, hub, channel=f"c{number}")
        await asyncio.sleep(0)
    lost.wake_up()
    await until(lambda: len(lost.data) == 10)
    lost.is_slow = True
    hub.offer(events)
    await asyncio.sleep(0)
    hub.offer(events)
    others = [Outlet(hub, loose=(f"loose {number}",)) for number in range(50)]
    await until(lambda: all(client.messages for client in others))
    for client in others:
        client.is_slow = True
    for number in range(50):
        hub.offer([Event(f"loose {number}", "message", "x" * 1_000)] * 2)
    assert kept(hub) <= BUDGET
    lost.wake_up()
    await until(lambda: lost.of_type("stream-reset"))


@with_budget
async def test_a_channel_that_is_held_no_more_gives_back_what_it_had(log, hub):
    first, second = Outlet(hub, "a"), Outlet(hub, "b")
    await until(lambda: first.messages and second.messages)
    offer(log, hub, 3)
    offer(log, hub, 5, channel="b")
    await caught_up([first], 3)
    both = kept(hub)
    hub.leave(first.connection)
    assert 3 * FRAME_BYTES < both - kept(hub) < 5 * FRAME_BYTES
    hub.leave(second.connection)
    assert kept(hub) == 0


@with_budget
@mock.patch.object(convoy, "PATIENCE_SECONDS", 0.0)
async def test_a_client_that_does_not_read_costs_what_the_setting_says(log, hub):
    """It kept a page of the log as well, which is four times as large."""
    hub = Hub(log, replace(OPTIONS, poll_seconds=60, window_bytes=40_000))
    for _ in range(1_000):
        log.append("a", "x" * 300)
        log.append("b", "x" * 300)
    slow = [
        Outlet(hub, "a", cursor="a:0"),
        Outlet(hub, "a", "b", cursor="a:0,b:0"),
        Outlet(hub, "a", "b", cursor="a:1000,b:0"),
    ]
    sizes: dict[Outlet, int] = {}
    for client in slow:
        take_note_of_chunks(client, sizes)
    await until(lambda: len(sizes) == len(slow))
    largest = FRAME_BYTES + 400
    for _ in range(20):
        offer(log, hub, channel="a", data="x" * 300)
        await asyncio.sleep(0.005)
        for client in slow:
            page = sum(frame.size for frame in client.connection.convoy._page)
            assert sizes[client] + page <= OPTIONS.backlog_bytes + 2 * largest
            client.connection.ready()
    for client in slow:
        client.connection.send = client.send
        client.wake_up()
    last = len(log.events["a"])
    await until(lambda: slow[0].cursor == f"a:{last}")
    await until(lambda: all(client.cursor == f"a:{last},b:1000" for client in slow[1:]))
    assert [len(client.data) for client in slow] == [last, last + 1_000, last]


@with_budget
@mock.patch.object(convoy, "PATIENCE_SECONDS", 0.0)
async def test_for_a_slow_client_no_more_is_read_than_it_takes(log, hub):
    """Of each page it would have kept a quarter, and the rest would have been read again."""
    pages = await pages_for_a_client_with_pauses(log, seconds=0.001)
    assert sum(pages) < 1.5 * PAUSED
    assert max(pages[2:]) * LARGE < 2 * OPTIONS.backlog_bytes


@with_budget
async def test_a_client_that_is_held_up_for_a_moment_costs_the_log_no_more_reads(log, hub):
    """It kept no page, however short the moment: ten thousand events took twice the statements."""
    pages = await pages_for_a_client_with_pauses(log, seconds=0.001)
    assert sum(pages) < 1.5 * PAUSED
    assert len(pages) < 3 + PAUSED * LARGE / (40_000 // PAGES_IN_WINDOW)


@with_budget
async def test_whoever_was_held_back_once_is_soon_read_for_by_whole_pages(log, hub):
    pages: list[int] = []
    hub = hub_that_notes_pages(log, pages)
    client = Outlet(hub, "a", cursor="a:0")
    client.connection.convoy.hold_back()
    await until(lambda: len(client.data) == 300)
    assert pages[0] * LARGE < 2 * OPTIONS.backlog_bytes
    assert len(pages) < 20


PAUSED = 250
LARGE = FRAME_BYTES + 300


def hub_that_notes_pages(log: MemoryLog, pages: list[int]) -> Hub:
    for _ in range(300):
        log.append("a", "x" * 300)
    read = log.read

    async def noting(*arguments):
        page = await read(*arguments)
        pages.append(len(page))
        return page

    log.read = noting
    return Hub(log, replace(OPTIONS, poll_seconds=60, window_bytes=40_000))


async def pages_for_a_client_with_pauses(log: MemoryLog, seconds: float) -> list[int]:
    """It takes each chunk so much later; return how many events each page had."""
    pages: list[int] = []
    hub = hub_that_notes_pages(log, pages)
    client, sizes = Outlet(hub, "a", cursor="a:0"), {}
    take_note_of_chunks(client, sizes)
    while len(client.data) < PAUSED:
        await asyncio.sleep(seconds)
        client.connection.ready()
    assert client.data == ["x" * 300] * len(client.data)
    return pages


def take_note_of_chunks(client: Outlet, sizes: dict[Outlet, int]) -> None:
    send = client.send

    def noting(chunk: bytes) -> bool:
        if b"stream-open" not in chunk:  # that one has padding
            sizes[client] = len(chunk)
            client.is_slow = True
        return send(chunk)

    client.connection.send = noting


@with_budget
async def test_what_is_read_for_those_who_have_left_is_not_kept(log, hub):
    """Nobody held the channel any more: its window was filled, and stayed in the books."""
    for _ in range(20):
        log.append("b")
    read, go_on = log.read, asyncio.Event()

    async def late(*arguments):
        page = await read(*arguments)
        await go_on.wait()
        return page

    stays, leaves = Outlet(hub, "a"), Outlet(hub, "b")
    await until(lambda: stays.messages and leaves.messages)
    log.read = late
    reads = log.reads
    hub.hint("b", log.append("b").id)
    await until(lambda: log.reads > reads)
    hub.leave(leaves.connection)
    go_on.set()
    log.read = read
    offer(log, hub)
    await until(lambda: stays.data == ["1"])
    for _ in range(20):
        await asyncio.sleep(0)
    assert 0 < kept(hub) < 2 * FRAME_BYTES
