"""Connections that travel together: whoever stays behind, joins or leaves disturbs no other."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from django_eventstream.cursors import Cursor
from django_eventstream.events import Event
from django_eventstream.exceptions import EventPermissionError
from django_eventstream.hold import Hold
from django_eventstream.hub import convoy
from django_eventstream.hub.convoy import Convoys
from django_eventstream.hub.hub import Hub
from django_eventstream.hub.turn import NextTurn
from tests.services.deadline import HEALTHY
from tests.sse_parser import EventStreamParser
from tests.unit.test_hub import OPTIONS, MemoryLog, in_a_loop, numbers


class Outlet:
    """A client that takes everything at once, unless it is told to be slow."""

    def __init__(
        self,
        hub: Hub,
        *channels: str,
        loose: tuple[str, ...] = (),
        cursor: str = "",
        user: str | None = None,
    ) -> None:
        self.hub = hub
        self.parser = EventStreamParser(cursor)
        self.messages = []
        self.chunks = 0
        self.is_slow = False
        self.is_at_its_end = False
        self.error: Exception | None = None
        self.on_send = lambda: None
        hold = Hold(
            reliable=tuple(channels),
            unreliable=loose,
            cursor=Cursor.parse(cursor) if cursor else None,
            user_id=user,
            authorized_at=time.monotonic(),
            authorize=lambda: None,
        )
        self.connection = hub.join(hold, self)

    def send(self, chunk: bytes) -> bool:
        assert not self.is_at_its_end
        self.chunks += 1
        self.messages += self.parser.feed(chunk)
        self.on_send()
        return not self.is_slow

    def end(self, error: Exception | None = None) -> None:
        self.is_at_its_end = True
        self.error = error

    def wake_up(self) -> None:
        """Has taken what it was busy with, and is slow no more."""
        self.is_slow = False
        self.connection.ready()

    @property
    def cursor(self) -> str:
        return self.parser.last_event_id

    @property
    def data(self) -> list[str]:
        return [message.data for message in self.messages if message.type == "message"]

    def of_type(self, kind: str) -> list[str]:
        return [message.data for message in self.messages if message.type == kind]


async def until(is_so) -> None:
    deadline = time.monotonic() + HEALTHY
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def together(*clients: Outlet) -> None:
    await until(lambda: len({client.connection.convoy for client in clients}) == 1)


async def in_order(*clients: Outlet) -> list[Outlet]:
    """The clients in the order in which they are served."""
    await together(*clients)
    outlets = {client.connection: client for client in clients}
    return [outlets[member] for member in clients[0].connection.convoy.members]


def offer(log: MemoryLog, hub: Hub, count: int = 1, channel: str = "a", **fields: object) -> None:
    for _ in range(count):
        hub.offer([log.append(channel, **fields)])


@in_a_loop
async def test_who_stands_at_the_same_place_travels_together(log, hub):
    clients = [Outlet(hub, "a") for _ in range(3)]
    other = Outlet(hub, "a", "b")
    await together(*clients)
    await until(lambda: other.messages)
    offer(log, hub, 4)
    await until(lambda: all(client.cursor == "a:4" for client in clients))
    await until(lambda: other.cursor == "a:4,b:0")
    assert [client.data for client in [*clients, other]] == [numbers(1, 4)] * 4
    assert len(hub._channels["a"].readers) == 2


@in_a_loop
async def test_what_comes_close_together_is_sent_together(log, hub):
    client = Outlet(hub, "a")
    await until(lambda: client.messages)
    before = client.chunks
    offer(log, hub, 5)
    await until(lambda: client.cursor == "a:5")
    assert client.chunks == before + 1


@in_a_loop
async def test_a_newcomer_in_the_middle_of_a_burst_misses_nothing_and_joins_the_others(log, hub):
    first = Outlet(hub, "a")
    await until(lambda: first.messages)
    offer(log, hub, 7)
    late = Outlet(hub, "a", cursor="a:2")
    for _ in range(5):
        offer(log, hub)
        await asyncio.sleep(0)
    await until(lambda: first.cursor == late.cursor == "a:12")
    assert first.data == numbers(1, 12)
    assert late.data == numbers(3, 12)
    await together(first, late)


@in_a_loop
async def test_who_is_busy_stays_behind_alone_and_joins_again_with_everything_in_order(log, hub):
    slow, *quick = [Outlet(hub, "a") for _ in range(4)]
    await together(slow, *quick)
    slow.is_slow = True
    for _ in range(150):
        offer(log, hub, channel="a", data="y" * 50)
        await asyncio.sleep(0)
    await until(lambda: all(client.cursor == "a:150" for client in quick))
    assert len(slow.data) == 1
    assert len({client.connection.convoy for client in quick}) == 1
    slow.wake_up()
    await until(lambda: slow.cursor == "a:150")
    await together(slow, *quick)
    offer(log, hub)
    await until(lambda: slow.cursor == "a:151")
    assert slow.data == quick[0].data


@in_a_loop
async def test_a_client_that_is_slow_for_less_than_an_event_never_leaves_the_others(log, hub):
    slow, quick = Outlet(hub, "a"), Outlet(hub, "a")
    await together(slow, quick)
    convoy = slow.connection.convoy
    for number in range(1, 10):
        slow.is_slow = True
        offer(log, hub)
        await until(lambda number=number: slow.cursor == f"a:{number}")
        slow.wake_up()
    assert slow.connection.convoy is quick.connection.convoy is convoy
    assert slow.data == quick.data == numbers(1, 9)


@in_a_loop
async def test_if_all_are_busy_nobody_is_left_behind(log, hub):
    clients = [Outlet(hub, "a") for _ in range(3)]
    await together(*clients)
    for client in clients:
        client.is_slow = True
    for _ in range(5):
        offer(log, hub)
        await asyncio.sleep(0)
    assert len({client.connection.convoy for client in clients}) == 1
    for client in clients:
        client.wake_up()
    await until(lambda: all(client.cursor == "a:5" for client in clients))
    assert all(client.data == numbers(1, 5) for client in clients)


@pytest.mark.parametrize("skipped", [{1}, {3}, {2, 3}, {1, 2, 3}])
def test_users_who_are_skipped_travel_with_the_others(skipped):
    @in_a_loop
    async def check(log, hub):
        theirs, others, nobodys = (Outlet(hub, "a", user=user) for user in ("7", "8", None))
        await together(theirs, others, nobodys)
        for number in (1, 2, 3):
            offer(log, hub, skip_user_ids=frozenset({"7"} if number in skipped else ()))
        await until(lambda: theirs.cursor == others.cursor == nobodys.cursor == "a:3")
        assert theirs.data == [str(number) for number in (1, 2, 3) if number not in skipped]
        assert others.data == nobodys.data == numbers(1, 3)
        assert theirs.connection.convoy is others.connection.convoy

    check()


@in_a_loop
async def test_a_reset_reaches_each_once_who_is_busy_too(log, hub):
    slow, quick = Outlet(hub, "a"), Outlet(hub, "a")
    await together(slow, quick)
    slow.is_slow = True
    offer(log, hub, 3)
    await until(lambda: quick.cursor == "a:3")
    offer(log, hub)
    await until(lambda: quick.cursor == "a:4")
    del log.events["a"][1:]
    log.epoch = 77
    await until(lambda: quick.of_type("stream-reset"))
    slow.wake_up()
    await until(lambda: slow.of_type("stream-reset"))
    offer(log, hub, data="new 2")
    await until(lambda: slow.cursor == quick.cursor == "a:2,:77")
    for client in (slow, quick):
        assert [json.loads(data)["reasons"] for data in client.of_type("stream-reset")] == [
            {"a": "epoch"}
        ]
        assert client.data[-1] == "new 2"


@in_a_loop
async def test_who_leaves_while_others_are_served_gets_nothing_more(log, hub):
    first, second, third = await in_order(*(Outlet(hub, "a") for _ in range(3)))
    first.on_send = lambda: hub.leave(second.connection)
    offer(log, hub, 2)
    await until(lambda: first.cursor == third.cursor == "a:2")
    assert second.data == []
    assert hub.statistics().connections == 2


@in_a_loop
async def test_who_loses_permission_while_others_are_served_is_told_and_gets_nothing_more(log, hub):
    first, second = await in_order(Outlet(hub, "a"), Outlet(hub, "a"))
    error = EventPermissionError.for_channels(["a"])
    first.on_send = lambda: second.connection.fail(error)
    offer(log, hub, 2)
    await until(lambda: second.is_at_its_end)
    assert second.data == []
    assert len(second.of_type("stream-error")) == 1


@in_a_loop
async def test_an_event_that_is_sent_while_others_are_served_comes_after_them(log, hub):
    first, second = Outlet(hub, "a"), Outlet(hub, "a")
    await together(first, second)

    def send_one_more() -> None:
        first.on_send = lambda: None
        offer(log, hub)

    first.on_send = send_one_more
    offer(log, hub)
    await until(lambda: first.cursor == second.cursor == "a:2")
    assert first.data == second.data == ["1", "2"]


@in_a_loop
async def test_a_farewell_waits_for_what_the_client_is_busy_with(log, hub):
    client = Outlet(hub, "a")
    await until(lambda: client.messages)
    client.is_slow = True
    offer(log, hub)
    await until(lambda: client.data == ["1"])
    hub.drain()
    offer(log, hub)
    await asyncio.sleep(0.01)
    assert client.parser.retry is None
    client.wake_up()
    await until(lambda: client.is_at_its_end)
    assert client.parser.retry
    assert client.data == ["1"]
    assert client.error is None


@in_a_loop
async def test_a_keep_alive_is_only_for_who_has_nothing_else_to_take(log, hub):
    idle, busy = Outlet(hub, "a"), Outlet(hub, "b")
    idle.connection.keep_alive()
    await until(lambda: idle.messages and busy.messages)
    assert idle.messages[0].type == "stream-open"
    busy.is_slow = True
    offer(log, hub, channel="b")
    await until(lambda: busy.data)
    for client in (idle, busy):
        client.connection.keep_alive()
        client.connection.keep_alive()
    await until(lambda: idle.of_type("keep-alive"))
    busy.wake_up()
    await asyncio.sleep(0.01)
    assert len(idle.of_type("keep-alive")) == 1
    assert busy.of_type("keep-alive") == []
    assert idle.cursor == "a:0"


@in_a_loop
async def test_a_fault_in_one_convoy_ends_its_streams_and_silences_no_other(log, hub):
    hub.offer([])
    bad, good = Outlet(hub, "a"), Outlet(hub, "b")
    await until(lambda: bad.messages and good.messages)
    bad.connection.convoy._positions.clear()
    offer(log, hub)
    offer(log, hub, channel="b")
    await until(lambda: good.data == ["1"])
    await until(lambda: bad.is_at_its_end)
    assert isinstance(bad.error, KeyError)


@in_a_loop
async def test_a_convoy_that_lags_behind_the_window_reads_the_log_once_for_all(log, hub):
    clients = [Outlet(hub, "a") for _ in range(20)]
    await together(*clients)
    reads = log.reads
    for _ in range(200):
        log.append("a", "z" * 100)
    hub.hint("a", 200)
    await until(lambda: all(client.cursor == "a:200" for client in clients))
    assert len({client.connection.convoy for client in clients}) == 1
    assert all(len(client.data) == 200 for client in clients)
    assert log.reads - reads < 2 * 200 * 250 * 4 // OPTIONS.window_bytes


@in_a_loop
async def test_when_all_have_left_nothing_is_kept(log, hub):
    clients = [Outlet(hub, "a", cursor=f"a:{number}") for number in (0, 0, 9)]
    await until(lambda: all(client.messages for client in clients))
    clients[0].is_slow = True
    offer(log, hub)
    await until(lambda: clients[1].data)
    for client in clients:
        hub.leave(client.connection)
    assert hub._convoys._fronts == {}
    assert hub.statistics().channels == 0


@in_a_loop
async def test_events_that_nobody_stores_travel_the_same_way(log, hub):
    skipped, other = (Outlet(hub, loose=("loose",), user=user) for user in ("7", "8"))
    await together(skipped, other)
    before = skipped.chunks
    hub.offer([Event("loose", "message", "x", skip_user_ids=frozenset({"7"}))])
    await until(lambda: other.data == ["x"])
    assert skipped.chunks == before, "who is skipped, and has no cursor, is sent nothing"
    assert skipped.connection.convoy is other.connection.convoy


@in_a_loop
async def test_whoever_stays_behind_at_the_oldest_event_kept_is_not_reset_either(log, hub):
    for _ in range(3):
        log.append("a")
    log.trim("a", 0)
    quick, slow = Outlet(hub, "a", cursor="a:0"), Outlet(hub, "a", cursor="a:0")
    slow.on_send = lambda: setattr(slow, "is_slow", slow.cursor == "a:3")
    await together(quick, slow)
    assert slow.is_slow
    for _ in range(100):
        offer(log, hub)
    await until(lambda: quick.cursor == "a:103")
    log.trim("a", 5)
    slow.wake_up()
    await until(lambda: slow.cursor == "a:103")
    assert slow.of_type("stream-reset") == []
    assert slow.data == numbers(99, 103)


@in_a_loop
async def test_whoever_stays_behind_is_told_as_well_that_it_must_start_over(log, hub):
    quick, slow = Outlet(hub, "a"), Outlet(hub, "a")
    await together(quick, slow)
    slow.is_slow = True
    offer(log, hub)
    await until(lambda: slow.data)
    log.epoch = 7
    await until(lambda: quick.of_type("stream-reset"))
    slow.wake_up()
    await until(lambda: slow.of_type("stream-reset"))
    assert slow.messages == quick.messages


def test_only_whoever_has_been_held_up_for_long_is_held_back_and_others_in_time(monkeypatch):
    held_back, looks = [], []

    class HeldUp:
        def hold_back(self) -> None:
            held_back.append(self)

    async def main() -> None:
        convoys = Convoys(NextTurn(), OPTIONS.backlog_bytes)
        now, for_long, just_now = convoys._loop.time(), HeldUp(), HeldUp()
        convoys.held_up = {for_long: now - convoy.PATIENCE_SECONDS, just_now: now}
        convoys._look_again = looks.append
        convoys._hold_back()
        assert held_back == [for_long]
        assert 0 < looks[0] <= convoy.PATIENCE_SECONDS

    monkeypatch.setattr(convoy, "PATIENCE_SECONDS", 3_600)
    asyncio.run(main())


@in_a_loop
async def test_whoever_goes_on_is_not_held_up_any_more(log, hub):
    client = Outlet(hub, "a")
    await until(lambda: client.messages)
    client.is_slow = True
    offer(log, hub)
    await until(lambda: client.data)
    offer(log, hub)
    await until(lambda: hub._convoys.held_up)
    client.wake_up()
    await until(lambda: client.data == ["1", "2"])
    assert not hub._convoys.held_up
