"""The hub against a log that is slow, fails, forgets and is restored: ids decide, always."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from dataclasses import replace

import pytest

from django_eventstream.control import DISCONNECT
from django_eventstream.cursors import Cursor
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.exceptions import (
    EventPermissionError,
    HistoryGoneError,
    StorageUnavailableError,
)
from django_eventstream.hold import Hold
from django_eventstream.hub.channel import PAGES_IN_WINDOW
from django_eventstream.hub.hub import Hub, HubOptions
from django_eventstream.hub.log import LogReader
from django_eventstream.storage.base import LogPosition
from django_eventstream.web import streams
from tests.services.deadline import HEALTHY
from tests.sse_parser import EventStreamParser, Message
from tests.transcript import positions

OPTIONS = HubOptions(
    poll_seconds=0.01,
    keep_alive_seconds=60,
    window_bytes=4_000,
    total_window_bytes=1_000_000,
    backlog_bytes=1_500,
)


class MemoryLog:
    """What a hub asks of a log, kept in memory; it can be slow, and it can be away."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {CONTROL_CHANNEL: []}
        self.trimmed: dict[str, int] = {}
        self.epoch = 0
        self.reads = 0
        self.questions = 0
        self.is_away = False
        self.delay = 0.0
        self.left_behind: frozenset[str] = frozenset()
        self.threads = 0

    def append(self, channel: str, data: str = "", **fields: object) -> Event:
        events = self.events.setdefault(channel, [])
        number = len(events) + 1
        events.append(Event(channel, "message", data or str(number), number, **fields))
        return events[-1]

    def trim(self, channel: str, keep: int) -> None:
        self.trimmed[channel] = max(0, len(self.events.get(channel, ())) - keep)

    async def get_position(self, channels: list[str]) -> LogPosition:
        await self._answer()
        self.questions += 1
        ids = {name: len(self.events.get(name, ())) for name in channels}
        await asyncio.sleep(self.delay)
        return LogPosition(ids, self.epoch, self.left_behind)

    async def read(self, channel: str, after: int, limit: int, max_bytes: int) -> list[Event]:
        await self._answer()
        self.reads += 1
        trimmed = self.trimmed.get(channel, 0)
        if after < trimmed:
            raise HistoryGoneError(channel, oldest=trimmed + 1)
        found = self.events.get(channel, [])[after : after + limit]
        await asyncio.sleep(self.delay)
        return found

    def rest(self) -> None:
        pass

    async def _answer(self) -> None:
        await asyncio.sleep(self.delay)
        if self.is_away:
            raise StorageUnavailableError("away")


class Client:
    """Takes what a hub has for it, as fast as a test lets it; comes back with its cursor."""

    def __init__(self, hub: Hub, *channels: str, cursor: str = "", **hold: object) -> None:
        self.hub = hub
        self.channels = channels
        self.fields = hold
        self.messages: list[Message] = []
        self.cursor = cursor
        self.retry: int | None = None
        self.largest_chunk = 0
        self.woken = asyncio.Event()
        self.join()

    def join(self) -> None:
        self.parser = EventStreamParser(self.cursor)
        self.chunk = b""
        self.has_end = False
        fields = {
            "reliable": tuple(sorted(self.channels)),
            "unreliable": (),
            "cursor": Cursor.parse(self.cursor) if self.cursor else None,
            "user_id": None,
            "authorized_at": time.monotonic(),
            "authorize": lambda: None,
        }
        self.connection = self.hub.join(Hold(**{**fields, **self.fields}), self)

    # What the hub says

    def send(self, chunk: bytes) -> bool:
        assert not self.chunk, "nothing is sent until the last chunk was taken"
        assert not self.has_end
        self.chunk = chunk
        self.woken.set()
        return False

    def end(self, error: Exception | None = None) -> None:
        assert not self.chunk
        assert error is None
        self.has_end = True

    # What the client does

    def take(self, cut: int | None = None) -> bool:
        """Takes one chunk, of which only `cut` bytes arrive; whether there was one."""
        chunk, self.chunk = self.chunk, b""
        self.largest_chunk = max(self.largest_chunk, len(chunk))
        self.messages += self.parser.feed(chunk[:cut])
        self.cursor = self.parser.last_event_id
        self.retry = self.parser.retry
        if chunk:
            self.connection.ready()
        return bool(chunk)

    def drop(self, cut: int = 0) -> None:
        """Loses the connection inside the next chunk."""
        self.take(cut)
        self.leave()
        self.join()

    def leave(self) -> None:
        self.hub.leave(self.connection)

    async def until(self, is_so) -> None:
        async def taking() -> None:
            while not is_so():
                self.woken.clear()
                if not self.take():
                    await self.woken.wait()

        await asyncio.wait_for(taking(), HEALTHY)

    async def until_at(self, **last: int) -> None:
        await self.until(lambda: all(positions(self.cursor).get(c) == n for c, n in last.items()))

    def data(self, channel: str | None = None) -> list[str]:
        found, last = [], {}
        for message in self.messages:
            now = positions(message.last_event_id)
            if message.type == "message" and channel in (None, *moved(last, now)):
                found.append(message.data)
            last = now
        return found

    def resets(self) -> list[dict[str, str]]:
        return [json.loads(m.data)["reasons"] for m in self.messages if m.type == "stream-reset"]


def moved(last: dict[str, int], now: dict[str, int]) -> set[str]:
    return {channel for channel, number in now.items() if last.get(channel) != number}


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


def in_a_loop(test):
    """Runs an async test in a loop of its own, with a log and a hub."""

    def run() -> None:
        async def main() -> None:
            log = MemoryLog()
            hub = Hub(log, OPTIONS)
            await test(log, hub)

        asyncio.run(main())

    run.__doc__ = test.__doc__
    run.__name__ = test.__name__
    return run


@in_a_loop
async def test_a_stream_without_cursor_starts_now_and_its_first_frame_says_where(log, hub):
    log.append("a")
    client = Client(hub, "a")
    await client.until(lambda: client.messages)
    assert client.messages == [Message("stream-open", "", "a:1")]
    hub.offer([log.append("a")])
    await client.until_at(a=2)
    assert client.data() == ["2"]


@in_a_loop
async def test_a_cursor_is_resumed_exactly(log, hub):
    for _ in range(10):
        log.append("a")
    client = Client(hub, "a", cursor="a:4")
    await client.until_at(a=10)
    assert client.data() == numbers(5, 10)
    assert client.messages[0] == Message("stream-open", "", "a:4")


@in_a_loop
async def test_hints_may_be_lost_doubled_late_and_out_of_order(log, hub):
    client = Client(hub, "a", "b", cursor="a:0,b:0")
    await client.until(lambda: client.messages)
    events = [log.append("a") for _ in range(6)] + [log.append("b")]
    hub.offer([events[3], events[0], events[0], events[6], events[6], events[1], events[5]])
    await client.until_at(a=6, b=1)
    hub.offer(events)
    hub.hint("a", 3)
    await asyncio.sleep(0.05)
    client.take()
    assert client.data("a") == numbers(1, 6)
    assert client.data("b") == ["1"]


@in_a_loop
async def test_the_log_is_asked_even_if_nobody_gives_a_hint(log, hub):
    client = Client(hub, "a")
    await client.until(lambda: client.messages)
    log.append("a")
    await client.until_at(a=1)
    assert client.data() == ["1"]


@in_a_loop
async def test_many_who_come_back_cost_one_read(log, hub):
    for _ in range(40):
        log.append("a", "x" * 10)
    hub = Hub(log, replace(OPTIONS, poll_seconds=60, window_bytes=200_000))
    clients = [Client(hub, "a", cursor=f"a:{n % 20}") for n in range(300)]
    for client in clients:
        await client.until_at(a=40)
    assert [len(client.data()) for client in clients] == [40 - n % 20 for n in range(300)]
    assert log.reads <= 2
    assert log.questions <= 2


@in_a_loop
async def test_a_slow_reader_is_resumed_from_the_log_and_costs_a_bounded_backlog(log, hub):
    slow, quick = Client(hub, "a", cursor="a:0"), Client(hub, "a", cursor="a:0")
    await slow.until(lambda: slow.messages)
    slow.largest_chunk = 0  # the first one has the padding
    for _ in range(400):
        hub.offer([log.append("a", "y" * 50)])
    await quick.until_at(a=400)
    await slow.until_at(a=400)
    assert len(slow.data()) == len(quick.data()) == 400
    assert slow.largest_chunk <= OPTIONS.backlog_bytes + 200


@in_a_loop
async def test_what_is_no_longer_kept_is_told_with_the_place_to_go_on_from(log, hub):
    for _ in range(30):
        log.append("a")
    log.trim("a", keep=10)
    kept, lost = Client(hub, "a", cursor="a:20"), Client(hub, "a", cursor="a:19")
    await kept.until_at(a=30)
    await lost.until(lambda: lost.resets())
    assert kept.data() == numbers(21, 30)
    assert kept.resets() == []
    assert lost.resets() == [{"a": "expired"}]
    assert lost.cursor == "a:30"
    hub.offer([log.append("a")])
    await lost.until_at(a=31)
    assert lost.data() == ["31"]


@in_a_loop
async def test_the_beginning_is_the_oldest_event_kept_in_whatever_epoch(log, hub):
    """In any epoch but the first `a:0` was reset, and where the first event had expired as well."""
    log.epoch = 7
    for _ in range(30):
        log.append("a")
    whole = Client(hub, "a", cursor="a:0")
    await whole.until_at(a=30)
    assert whole.data() == numbers(1, 30)
    log.trim("a", keep=10)
    trimmed = Client(Hub(log, OPTIONS), "a", "b", cursor="a:0,b:0")
    await trimmed.until_at(a=30)
    assert trimmed.data() == numbers(21, 30)
    assert trimmed.cursor == "a:30,b:0,:7"
    assert whole.resets() == trimmed.resets() == []


@in_a_loop
async def test_zero_of_an_epoch_is_a_position_like_any_other(log, hub):
    log.epoch = 7
    log.append("a")
    log.append("a")
    kept, restored = Client(hub, "a", cursor="a:0,:7"), Client(hub, "a", cursor="a:0,:0")
    await kept.until_at(a=2)
    await restored.until(restored.resets)
    log.trim("a", keep=1)
    expired = Client(Hub(log, OPTIONS), "a", cursor="a:0,:7")
    await expired.until(expired.resets)
    assert (kept.data(), kept.resets()) == (numbers(1, 2), [])
    assert restored.resets() == [{"a": "epoch"}]
    assert expired.resets() == [{"a": "expired"}]


@in_a_loop
async def test_a_client_cut_off_before_the_first_event_begins_at_the_beginning_again(log, hub):
    log.epoch = 7
    for _ in range(10):
        log.append("a")
    log.delay = 0.05
    client = Client(hub, "a", cursor="a:0")
    await client.until(lambda: client.messages)
    assert client.cursor == "a:0"
    log.trim("a", keep=5)
    client.drop()
    await client.until_at(a=10)
    assert client.resets() == []
    assert client.data() in (numbers(1, 10), numbers(6, 10))


@in_a_loop
async def test_a_client_at_the_beginning_of_what_is_left_is_told_where_that_is(log, hub):
    """Nothing was kept: it would have come back with a 0 that another channel's epoch dates."""
    log.epoch = 7
    for _ in range(3):
        log.append("a")
        log.append("b")
    log.trim("a", keep=0)
    client = Client(hub, "a", "b", cursor="a:0,b:3")
    await client.until_at(a=3)
    assert client.resets() == [{"b": "epoch"}]
    client.drop()
    log.append("a")
    await client.until_at(a=4)
    assert client.data() == ["4"]
    assert client.resets() == [{"b": "epoch"}]


@in_a_loop
async def test_a_quiet_channel_whose_events_are_all_gone_resets_nobody_who_is_up_to_date(log, hub):
    for _ in range(5):
        log.append("a")
    log.trim("a", keep=0)
    client = Client(hub, "a", cursor="a:5")
    await client.until(lambda: client.messages)
    log.append("a")
    await client.until_at(a=6)
    assert client.resets() == []
    assert client.data() == ["6"]


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("a:99", "ahead"),
        (f"a:{10**29}", "ahead"),
        ("a:x", "unreadable"),
        ("42", "unreadable"),
        ("%ff:1", "unreadable"),
        ("a:1,:7", "epoch"),
        ("a:-1", "unreadable"),
    ],
)
def test_a_cursor_that_cannot_be_resumed_is_answered_with_the_reason(cursor, reason):
    @in_a_loop
    async def check(log, hub):
        log.append("a")
        client = Client(hub, "a", cursor=cursor)
        await client.until(lambda: client.resets())
        assert client.resets() == [{"a": reason}]
        assert client.cursor == "a:1"

    check()


@in_a_loop
async def test_a_restored_log_tells_open_streams_once_of_all_channels(log, hub):
    for _ in range(5):
        log.append("a")
        log.append("b")
    client = Client(hub, "a", "b", cursor="a:5,b:5")
    await client.until(lambda: client.messages)
    log.events["a"] = log.events["a"][:2]
    log.epoch = 1234
    await client.until(lambda: client.resets())
    assert client.resets() == [{"a": "epoch", "b": "epoch"}]
    assert client.cursor == "a:2,b:5,:1234"
    hub.offer([log.append("a", "again 3")])
    await client.until_at(a=3)
    assert client.data() == ["again 3"]
    assert client.cursor == "a:3,b:5,:1234"
    late = Client(hub, "a", "b", cursor="a:5,b:5")
    await late.until(lambda: late.resets())
    assert late.resets() == [{"a": "epoch", "b": "epoch"}]


@in_a_loop
async def test_a_log_that_went_back_without_a_new_epoch_is_noticed(log, hub):
    for _ in range(5):
        log.append("a")
    client = Client(hub, "a", cursor="a:5")
    await client.until(lambda: client.messages)
    del log.events["a"][2:]
    await client.until(lambda: client.resets())
    assert client.resets() == [{"a": "ahead"}]
    assert client.cursor == "a:2"


@in_a_loop
async def test_streams_survive_a_log_that_goes_away_and_comes_back(log, hub):
    client = Client(hub, "a")
    await client.until(lambda: client.messages)
    log.is_away = True
    event = log.append("a")
    log.append("a")
    hub.hint("a", event.id)
    await asyncio.sleep(0.05)
    log.is_away = False
    await client.until_at(a=2)
    assert client.data() == ["1", "2"]


@in_a_loop
async def test_users_who_are_skipped_get_the_position_and_not_the_event(log, hub):
    skipping, other = Client(hub, "a", user_id="7"), Client(hub, "a", user_id="8")
    await skipping.until(lambda: skipping.messages)
    await other.until(lambda: other.messages)
    hub.offer([log.append("a", skip_user_ids=frozenset({"7"}))])
    await skipping.until(lambda: skipping.cursor == "a:1")
    await other.until_at(a=1)
    assert skipping.data() == []
    assert other.data() == ["1"]
    returning = Client(hub, "a", cursor="a:0", user_id="7")
    await returning.until(lambda: returning.cursor == "a:1")
    assert returning.data() == []


@in_a_loop
async def test_a_permission_that_is_taken_away_ends_the_users_streams_on_that_channel(log, hub):
    theirs = Client(hub, "a", "b", user_id="7")
    others = [Client(hub, "a", user_id="8"), Client(hub, "b", user_id="7"), Client(hub, "a")]
    for client in [theirs, *others]:
        await client.until(lambda client=client: client.messages)
    disconnect(log, hub, "7", "a")
    await theirs.until(lambda: theirs.messages[-1].type == "stream-error")
    error = theirs.messages[-1]
    assert (error.type, error.last_event_id) == ("stream-error", "error")
    assert json.loads(error.data) == {
        "condition": "forbidden",
        "text": "Permission denied to channels: a",
        "channels": ["a"],
    }
    assert not any(client.connection.is_ended for client in others)


@in_a_loop
async def test_a_permission_that_changes_while_a_stream_joins_is_asked_for_again(log, hub):
    def refuse() -> None:
        raise EventPermissionError.for_channels(["a"])

    held = Client(hub, "b")
    await held.until(lambda: held.messages)
    before = time.monotonic()
    disconnect(log, hub, "7", "a")
    await asyncio.sleep(0.05)
    overtaken = Client(hub, "a", user_id="7", authorized_at=before, authorize=refuse)
    await overtaken.until(lambda: overtaken.messages)
    assert [message.type for message in overtaken.messages] == ["stream-error"]


@in_a_loop
async def test_a_loose_channel_is_passed_on_and_an_overflow_is_told(log, hub):
    client = Client(hub, reliable=("a",), unreliable=("loose",))
    await client.until(lambda: client.messages)
    hub.offer([Event("loose", "message", "one")])
    await client.until(lambda: client.data())
    assert client.messages[-1] == Message("message", "one", "a:0")
    for _ in range(200):
        hub.offer([Event("loose", "message", "z" * 50)])
    await client.until(lambda: client.resets())
    assert client.resets() == [{"loose": "overflow"}]


@in_a_loop
async def test_draining_ends_every_stream_and_sends_newcomers_back(log, hub):
    client = Client(hub, "a")
    await client.until(lambda: client.messages)
    hub.drain()
    late = Client(hub, "a")
    for each in (client, late):
        await each.until(lambda each=each: each.retry)
        assert each.connection.is_ended
        assert 1_000 <= each.retry <= 5_000


@in_a_loop
async def test_a_hub_that_nobody_uses_does_nothing(log, hub):
    client = Client(hub, "a")
    await client.until(lambda: client.messages)
    client.leave()
    assert hub.statistics().connections == 0
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
    asked = log.questions
    await asyncio.sleep(0.05)
    assert log.questions == asked
    again = Client(hub, "a", cursor="a:0")
    log.append("a")
    await again.until_at(a=1)


@in_a_loop
async def test_a_permission_that_goes_right_after_the_first_stream_came_is_heard_of(log, hub):
    hub = Hub(log, replace(OPTIONS, poll_seconds=0.3))
    client = Client(hub, reliable=(), unreliable=("loose",), user_id="7")
    await client.until(lambda: client.messages)
    disconnect(log, hub, "7", "loose")
    await client.until(lambda: client.messages[-1].type == "stream-error")


@in_a_loop
async def test_a_permission_that_goes_before_the_hub_can_hear_of_it_is_asked_for_again(log, hub):
    log.delay = 0.05
    first = Client(hub, "b")
    await asyncio.sleep(0)
    before = time.monotonic()
    disconnect(log, hub, "7", "a")
    overtaken = Client(hub, "a", user_id="7", authorized_at=before, authorize=refuse)
    await first.until(lambda: first.messages)
    await overtaken.until(lambda: overtaken.messages)
    assert [message.type for message in overtaken.messages] == ["stream-error"]


@in_a_loop
async def test_more_changes_of_permissions_than_are_remembered_hide_none(log, hub):
    held = Client(hub, "b", user_id="last")
    await held.until(lambda: held.messages)
    before = time.monotonic()
    disconnect(log, hub, "7", "a")
    for user in range(1_100):
        disconnect(log, hub, f"other {user}", "a")
    disconnect(log, hub, "last", "b")
    await held.until(lambda: held.messages[-1].type == "stream-error")
    overtaken = Client(hub, "a", user_id="7", authorized_at=before, authorize=refuse)
    await overtaken.until(lambda: overtaken.messages)
    assert [message.type for message in overtaken.messages] == ["stream-error"]


@in_a_loop
async def test_nothing_follows_the_error_of_a_stream_that_was_refused_while_it_joined(log, hub):
    def lose_it_meanwhile() -> None:
        hub.offer([disconnect(log, hub, "7", "a")])

    held = Client(hub, "b")
    await held.until(lambda: held.messages)
    client = Client(hub, "a", user_id="7", authorized_at=0.0, authorize=lose_it_meanwhile)
    await client.until(lambda: client.messages)
    assert not client.take()
    assert [message.type for message in client.messages] == ["stream-error"]


@in_a_loop
async def test_a_message_of_another_version_on_the_control_channel_hides_no_other(log, hub):
    client = Client(hub, "a", user_id="7")
    await client.until(lambda: client.messages)
    log.append(CONTROL_CHANNEL)
    event = log.events[CONTROL_CHANNEL].pop()
    log.events[CONTROL_CHANNEL].append(replace(event, type=DISCONNECT, data="{}"))
    disconnect(log, hub, "7", "a")
    await client.until(lambda: client.messages[-1].type == "stream-error")


@in_a_loop
async def test_revocations_that_nobody_can_hear_any_more_send_every_stream_back(log, hub):
    """An outage was longer than the control channel keeps: the streams went on for ever."""
    stamped = {"stamp": lambda: "a ticket", "ticket_seconds": 60}
    clients = [Client(hub, "a", user_id=user, **stamped) for user in ("7", None)]
    for client in clients:
        await client.until(lambda client=client: client.messages)
    log.is_away = True
    before = time.monotonic()
    disconnect(log, hub, "7", "a")
    disconnect(log, hub, "8", "elsewhere")
    log.trim(CONTROL_CHANNEL, keep=1)
    log.is_away = False
    hub.look()
    for client in clients:
        await client.until(lambda client=client: client.has_end)
        assert client.retry
        assert client.cursor == "a:0,:a ticket"  # of its first frame: none for what was missed
        assert len(client.messages) == 1
    overtaken = Client(hub, "a", user_id="7", authorized_at=before, authorize=refuse)
    await overtaken.until(lambda: overtaken.messages)
    assert [message.type for message in overtaken.messages] == ["stream-error"]


@in_a_loop
async def test_a_control_channel_that_went_back_may_hide_revocations(log, hub):
    """Its next messages have ids that the hub had passed, and were never read."""
    for _ in range(5):
        disconnect(log, hub, "9", "elsewhere")
    client = Client(hub, "a", user_id="7")
    await client.until(lambda: client.messages)
    del log.events[CONTROL_CHANNEL][1:]
    disconnect(log, hub, "7", "a")
    log.epoch = 77
    await client.until(lambda: client.has_end)
    assert client.retry


@in_a_loop
async def test_a_log_that_is_restored_while_a_stream_joins_does_not_hide_what_comes_next(log, hub):
    is_allowed = threading.Event()
    for _ in range(10):
        log.append("a")
    held = Client(hub, "a")
    await held.until(lambda: held.messages)
    joining = Client(hub, "a", user_id="7", authorized_at=0.0, authorize=lambda: is_allowed.wait(5))
    asked = log.questions
    await asked_again(log, asked + 1)
    del log.events["a"][4:]
    log.epoch = 77
    await held.until(lambda: held.resets())
    is_allowed.set()
    await joining.until(lambda: joining.messages)
    hub.offer([log.append("a", "new 5")])
    await joining.until_at(a=5)
    assert joining.messages[0].last_event_id == "a:4,:77"
    assert joining.data() == ["new 5"]


@in_a_loop
async def test_a_loose_event_larger_than_a_window_arrives(log, hub):
    client = Client(hub, reliable=(), unreliable=("loose",))
    await client.until(lambda: client.messages)
    large = "x" * 2 * OPTIONS.window_bytes
    hub.offer([Event("loose", "message", large)])
    await client.until(lambda: client.data() or client.resets())
    assert client.data() == [large]


@in_a_loop
async def test_a_channel_that_is_stored_now_and_was_not_before_is_two_channels(log, hub):
    for _ in range(5):
        log.append("a")
    loose = Client(hub, reliable=(), unreliable=("a",))
    await loose.until(lambda: loose.messages)
    stored = Client(hub, "a")
    await stored.until(lambda: stored.messages)
    assert stored.cursor == "a:5"
    hub.offer([log.append("a")])
    await stored.until_at(a=6)
    await loose.until(lambda: loose.data())
    assert stored.data() == ["6"]
    assert loose.messages[1:] == [Message("message", "6", "")]


@in_a_loop
async def test_a_connection_that_has_caught_up_keeps_nothing_for_itself(log, hub):
    for _ in range(300):
        log.append("a", "y" * 50)
    client = Client(hub, "a", cursor="a:0")
    await client.until_at(a=300)
    assert not client.connection.convoy._page


@in_a_loop
async def test_the_last_stream_that_leaves_with_news_leaves_no_task_behind(log, hub):
    for _ in range(3):
        client = Client(hub, "a")
        await client.until(lambda client=client: client.messages)
        hub.look()
        client.leave()
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    done, pending = await asyncio.wait(left, timeout=HEALTHY) if left else (left, set())
    assert not pending


@in_a_loop
async def test_numbering_that_must_wait_for_a_frozen_sender_stalls_no_stream(log, hub):
    async def wait_for_ever(channels) -> None:
        await asyncio.get_running_loop().create_future()

    log.relay = wait_for_ever
    log.left_behind = frozenset({"somebody elses"})
    client = Client(hub, "a")
    await client.until(lambda: client.messages)
    log.append("a")
    await client.until_at(a=1)
    client.leave()


@in_a_loop
async def test_a_permission_that_goes_while_a_new_epoch_begins_is_heard_of(log, hub):
    client = Client(hub, "a", user_id="7")
    await client.until(lambda: client.messages)
    disconnect(log, hub, "7", "a")
    log.epoch = 77
    await client.until(lambda: client.messages[-1].type == "stream-error")


def refuse() -> None:
    raise EventPermissionError.for_channels(["a"])


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_every_client_sees_each_event_once_and_in_order(seed):
    """Sends, hints in any order and number, cuts inside chunks, slow readers, trims, outages.

    In half of the cases all windows together have less room than one alone.
    """
    chance = random.Random(seed)

    @in_a_loop
    async def check(log, hub):
        hub = Hub(log, replace(OPTIONS, total_window_bytes=(1_000_000, 3_000)[seed % 2]))
        log.delay = chance.choice([0, 0.0005])
        names = ["a", "b", "c d"]
        clients = [
            Client(hub, *chance.sample(names, chance.randint(1, 3)), cursor="a:0,b:0,c%20d:0")
            for _ in range(6)
        ]
        late: list[Event] = []
        for _ in range(300):
            happening = chance.random()
            if happening < 0.45:
                event = log.append(chance.choice(names), size_of(chance))
                late += [event] * chance.choice([0, 1, 1, 2])
            elif happening < 0.6 and late:
                hub.offer([late.pop(chance.randrange(len(late)))])
            elif happening < 0.9:
                chance.choice(clients).take()
            elif happening < 0.95:
                chance.choice(clients).drop(chance.randrange(400))
            else:
                log.is_away = False
                await asyncio.sleep(0.001)
        for client in clients:
            last = {name: len(log.events.get(name, ())) for name in client.channels}
            await client.until(
                lambda client=client, last=last: all(
                    positions(client.cursor).get(name, 0) == number for name, number in last.items()
                )
            )
            for name in client.channels:
                expected = [event.data for event in log.events.get(name, ())]
                assert client.data(name) == expected, (seed, name)
            assert client.resets() == []

    check()


@in_a_loop
async def test_a_log_that_is_restored_right_after_its_answer_hides_nothing_from_newcomers(log, hub):
    for _ in range(10):
        log.append("a")
    held = Client(hub, "a")
    await held.until(lambda: held.messages)
    answer = hub._follower.ask

    def restore() -> None:
        del log.events["a"][4:]
        log.epoch = hub._follower.epoch = 77
        hub._channels["a"].restart(4, 77)

    async def answer_just_before(names):
        hub._follower.ask = answer
        ids = await answer(names)
        asyncio.get_running_loop().call_soon(restore)
        return ids

    newcomer = Client(hub, "a")
    hub._follower.ask = answer_just_before
    await newcomer.until(lambda: newcomer.messages)
    hub.offer([log.append("a", "new 5")])
    await newcomer.until_at(a=5)
    assert newcomer.data() == ["new 5"]


async def asked_again(log: MemoryLog, before: int) -> None:
    while log.questions <= before:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def size_of(chance: random.Random) -> str:
    return f"{chance.randrange(10**6)}:" + "x" * chance.choice([0, 10, 100, 900])


def disconnect(log: MemoryLog, hub: Hub, user: str | None, channel: str) -> Event:
    data = json.dumps({"user": user, "channel": channel})
    number = len(log.events[CONTROL_CHANNEL]) + 1
    log.events[CONTROL_CHANNEL].append(Event(CONTROL_CHANNEL, DISCONNECT, data, number))
    return log.events[CONTROL_CHANNEL][-1]


@in_a_loop
async def test_a_fault_of_the_log_is_an_outage_and_not_the_end(log, hub):
    """It ended the task that follows the log: nothing more came until the hub had rested."""

    class Faulty:
        broken = True

        def get_position(self, channels):
            if self.broken:
                raise RuntimeError("a row that nobody can read")
            return LogPosition(dict.fromkeys(channels, 0))

    storage = Faulty()
    reader = LogReader(storage)
    with pytest.raises(StorageUnavailableError, match="a row that nobody can read"):
        await reader.get_position(["a"])
    storage.broken = False
    assert (await reader.get_position(["a"])).ids == {"a": 0}


@in_a_loop
async def test_a_stream_of_many_channels_keeps_no_more_pages_than_one_of_few(log, hub):
    """Each of its channels could keep a page of its own."""
    names = [f"c{number}" for number in range(10)]
    for name in names:
        for _ in range(100):
            log.append(name, "x" * 100)
    hub = Hub(log, replace(OPTIONS, window_bytes=40_000))
    client = Client(hub, *names, cursor=",".join(f"{name}:0" for name in names))
    largest = 0
    while not all(positions(client.cursor).get(name) == 100 for name in names):
        client.take()
        largest = max(largest, sum(frame.size for frame in client.connection.convoy._page))
        await asyncio.sleep(0)
    assert largest <= 40_000 // PAGES_IN_WINDOW + len(names) * 500


def test_who_stops_waiting_for_a_chunk_gets_it_when_asking_again(monkeypatch):
    """As a heartbeat does that steps a stream of the plain lane with a timeout."""

    async def main() -> None:
        log = MemoryLog()
        log.append("a")
        hub = Hub(log, OPTIONS)
        monkeypatch.setattr(streams, "get_hub", lambda: hub)
        stream = streams.HeldStream(Hold(("a",), (), None, None, time.monotonic(), lambda: None))
        await anext(stream)
        asked = asyncio.ensure_future(stream.__anext__())
        await asyncio.sleep(0)
        asked.cancel()
        hub.offer([log.append("a", "two")])
        for _ in range(3):  # turns of the loop, in which it is sent
            await asyncio.sleep(0)
        for text in (b"two", b"three"):
            assert b"data: " + text in await asyncio.wait_for(stream.__anext__(), HEALTHY)
            if text == b"two":
                hub.offer([log.append("a", "three")])
        await stream.aclose()

    asyncio.run(main())
