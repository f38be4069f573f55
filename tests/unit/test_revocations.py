"""What a hub must know before it takes somebody back: all that was revoked since, or it refuses."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, contextmanager

import pytest

from django_eventstream.control import DISCONNECT
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.hold import Hold
from django_eventstream.hub import revocations
from django_eventstream.hub.hub import Hub
from django_eventstream.hub.revocations import ControlMark
from tests.services.deadline import HEALTHY
from tests.unit.test_hub import OPTIONS, MemoryLog


def hold(user_id="7", *channels):
    return Hold(
        reliable=channels or ("a",),
        unreliable=(),
        cursor=None,
        user_id=user_id,
        authorized_at=0.0,
        authorize=lambda: None,
    )


def revoke(log, user_id="7", channel="a", event_type=DISCONNECT):
    events = log.events[CONTROL_CHANNEL]
    data = json.dumps({"user": user_id, "channel": channel})
    events.append(Event(CONTROL_CHANNEL, event_type, data, len(events) + 1))


async def until(is_so):
    """Comes back when the hub has asked its log often enough."""
    while not is_so():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@asynccontextmanager
async def awake(log):
    hub = Hub(log, OPTIONS)
    with hub.staying_awake():
        yield hub


def allows(log, mark, *holds, epoch=0):
    """What a hub that begins now says to these, one after the other."""

    async def main():
        async with awake(log) as hub:
            return [await hub.may_return(each, ControlMark(epoch, mark)) for each in holds]

    return asyncio.run(main())


@pytest.fixture
def log():
    log = MemoryLog()
    for _ in range(3):
        revoke(log, "9", "elsewhere")
    return log


def test_a_new_process_reads_what_was_said_while_it_was_not_there(log):
    revoke(log)
    everybody = hold(), hold("8"), hold(None), hold("7", "b"), hold("7", "b", "a")
    assert allows(log, 3, *everybody) == [False, True, True, True, False]
    assert allows(log, 4, *everybody) == [True] * 5


def test_what_is_said_of_those_who_are_not_logged_in_is_not_of_users(log):
    revoke(log, None)
    assert allows(log, 3, hold(None), hold()) == [False, True]


def test_a_thousand_who_come_back_cost_one_read(log, monkeypatch):
    monkeypatch.setattr(revocations, "WAIT_SECONDS", HEALTHY)
    revoke(log, "8")
    log.delay = 0.01

    async def main():
        async with awake(log) as hub:
            asked = (hub.may_return(hold(), ControlMark(0, 2)) for _ in range(1_000))
            return await asyncio.gather(*asked)

    assert all(asyncio.run(main()))
    assert log.reads == 1
    assert log.questions < 20  # its regular ones are a hundred each second


def test_those_with_older_tickets_are_read_for_as_well(log):
    log.delay = 0.01

    async def main():
        async with awake(log) as hub:
            marks = [ControlMark(0, last) for last in (2, 0, 1, 3)]
            return await asyncio.gather(*(hub.may_return(hold(), mark) for mark in marks))

    assert asyncio.run(main()) == [True] * 4
    assert log.reads == 2


def test_what_is_said_later_is_heard(log):
    async def main():
        async with awake(log) as hub:
            assert await hub.may_return(hold(), ControlMark(0, 3))
            revoke(log)
            await until(lambda: hub.control_mark.id == 4)
            assert not await hub.may_return(hold(), ControlMark(0, 3))
            assert await hub.may_return(hold(), ControlMark(0, 4))

    asyncio.run(asyncio.wait_for(main(), HEALTHY))


@pytest.mark.parametrize(("mark", "epoch"), [(4, 0), (10**9, 0), (2, 1)])
def test_a_ticket_of_another_life_of_the_log_is_refused(log, mark, epoch):
    assert allows(log, mark, hold(), epoch=epoch) == [False]
    assert log.reads == 0


def test_what_is_not_kept_any_more_is_asked_for_once(log):
    log.trim(CONTROL_CHANNEL, keep=1)
    assert allows(log, 1, hold(), hold(), hold()) == [False] * 3
    assert log.reads == 1
    assert allows(log, 2, hold()) == [True]


def test_a_log_that_cannot_be_reached_refuses(log):
    log.is_away = True
    assert allows(log, 3, hold()) == [False]


def test_a_log_far_ahead_is_not_read_through(log, monkeypatch):
    monkeypatch.setattr(revocations, "MOST_READ", 2)
    assert allows(log, 0, hold()) == [False]
    assert log.reads == 0
    assert allows(log, 1, hold()) == [True]


def test_a_long_way_back_is_read_in_pages(log, monkeypatch):
    monkeypatch.setattr(revocations, "PAGE", 2)
    for number in range(10):
        revoke(log, str(number))
    assert allows(log, 0, hold("7"), hold("77"), hold("0")) == [False, True, False]


def test_a_message_that_this_version_cannot_read_refuses_all_from_before_it(log):
    events = log.events[CONTROL_CHANNEL]
    events.append(Event(CONTROL_CHANNEL, DISCONNECT, "[]", 4))
    revoke(log, "8")
    assert allows(log, 3, hold(), hold()) == [False, False]
    assert log.reads == 1
    assert allows(log, 4, hold()) == [True]


def test_messages_of_other_kinds_take_nothing_away(log):
    revoke(log, event_type="something-new")
    assert allows(log, 3, hold()) == [True]


def test_after_too_many_to_remember_older_tickets_are_refused(log, monkeypatch):
    monkeypatch.setattr(revocations, "MOST_REMEMBERED", 3)
    for number in range(6):
        revoke(log, f"u{number}")
    assert allows(log, 3, hold("77")) == [False]
    assert allows(log, 9, hold("77")) == [True]


def test_a_restored_log_refuses_what_was_issued_before(log):
    async def main():
        async with awake(log) as hub:
            assert await hub.may_return(hold(), ControlMark(0, 2))
            mark = hub.control_mark
            log.events[CONTROL_CHANNEL] = []
            await until(lambda: hub.control_mark != mark)
            for _ in range(5):
                revoke(log, "9")
            await until(lambda: hub.control_mark.id == 5)
            assert not await hub.may_return(hold(), ControlMark(0, 2))

    asyncio.run(asyncio.wait_for(main(), HEALTHY))


def test_a_restored_log_honours_what_is_issued_from_then_on(log):
    """It is forgotten once what was heard before, not each time that somebody comes back."""

    async def main():
        async with awake(log) as hub:
            assert await hub.may_return(hold(), ControlMark(0, 2))
            before = hub.control_mark
            log.events[CONTROL_CHANNEL] = log.events[CONTROL_CHANNEL][:1]
            await until(lambda: hub.control_mark != before)
            mark = hub.control_mark
            assert await hub.may_return(hold(), mark)
            for user in ("9", "8", "7"):
                last_id = hub.control_mark.id
                revoke(log, user)
                await until(lambda last_id=last_id: hub.control_mark.id == last_id + 1)
                assert await hub.may_return(hold(), mark) == (user != "7")
                assert await hub.may_return(hold(), hub.control_mark)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_hub_that_nobody_needs_rests_again(log):
    async def main():
        hub = Hub(log, OPTIONS)
        assert hub.control_mark is None
        assert not await hub.may_return(hold(), ControlMark(0, 3))
        with raised(hub):
            assert await hub.may_return(hold(), ControlMark(0, 3))
        assert hub.control_mark is None

    asyncio.run(main())


@contextmanager
def raised(hub):
    with hub.staying_awake():
        yield


def test_without_a_log_nobody_is_taken_back():
    async def main():
        hub = Hub(None, OPTIONS)
        with hub.staying_awake():
            assert hub.control_mark is None
            assert not await hub.may_return(hold(), ControlMark(0, 0))

    asyncio.run(main())
