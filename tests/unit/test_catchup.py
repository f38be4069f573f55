"""The read plan: every event once and in order, however small the pages are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from django_eventstream.catchup import MOST_READS, catch_up
from django_eventstream.cursors import Cursor
from django_eventstream.events import Event
from django_eventstream.exceptions import HistoryGoneError
from django_eventstream.hold import Hold
from django_eventstream.storage.base import LogPosition
from tests.sse_parser import EventStreamParser


class ListLog:
    """As much of a log as is read here: `kept` has the events of each channel."""

    def __init__(self, kept: dict[str, list[Event]], last: dict[str, int], epoch: int = 0) -> None:
        self.kept = kept
        self.position = LogPosition(last, epoch)
        self.reads = 0
        self.events_read = 0

    def read(self, channel: str, after: int, limit: int, max_bytes: int) -> list[Event]:
        self.reads += 1
        assert max_bytes > 0, "nothing fits, and so a log may find nothing"
        found = []
        for event in [event for event in self.kept[channel] if event.id > after][:limit]:
            if max_bytes > 0:
                found.append(event)
                max_bytes -= len(event.data)
        self.events_read += len(found)
        if found[:1] and found[0].id != after + 1:
            raise HistoryGoneError(channel, found[0].id)
        if not found and self.position.ids[channel] > after:
            raise HistoryGoneError(channel, self.position.ids[channel] + 1)
        return found


def log_of(**sizes: list[int]) -> ListLog:
    kept = {
        name: [Event(name, "message", f"{n} " + "x" * size, n) for n, size in enumerate(given_, 1)]
        for name, given_ in sizes.items()
    }
    return ListLog(kept, {name: len(events) for name, events in kept.items()})


def hold_of(log: ListLog, cursor: Cursor | None, user_id: str | None = None) -> Hold:
    return Hold(
        reliable=tuple(sorted(log.kept)),
        unreliable=(),
        cursor=cursor,
        user_id=user_id,
        authorized_at=0,
        authorize=lambda: None,
    )


def page(log, cursor, room=10_000, at_least_one=True, user_id=None):
    hold = hold_of(log, cursor, user_id)
    return catch_up(log, hold, log.position, room=room, at_least_one=at_least_one)


def messages(batch):
    return EventStreamParser().feed(b"".join(batch.frames))


@given(
    st.lists(st.integers(0, 3_000), max_size=30),
    st.lists(st.integers(0, 3_000), max_size=120),
    st.integers(1, 20_000),
)
def test_pages_have_every_event_once_and_in_order(first, second, room):
    log = log_of(a=first, b=second)
    cursor, found, has_more = Cursor({"a": 0, "b": 0}), [], True
    while has_more:
        batch = page(log, cursor, room)
        assert batch.start.positions == cursor.positions
        found += messages(batch)
        assert sum(map(len, batch.frames)) <= room or len(batch.frames) == 1
        cursor, has_more = batch.end, batch.has_more
        if found:
            assert Cursor.parse(found[-1].last_event_id).positions == cursor.positions
    numbers = [int(message.data.split()[0]) for message in found]
    assert numbers == [*range(1, len(first) + 1), *range(1, len(second) + 1)]


def test_an_event_larger_than_the_room_waits_for_the_next_page_where_it_must():
    log = log_of(a=[10, 5_000, 10])
    batch = page(log, Cursor({"a": 1}), room=1_000, at_least_one=False)
    assert (batch.frames, batch.has_more, batch.end.positions) == ((), True, {"a": 1})
    batch = page(log, Cursor({"a": 1}), room=1_000, at_least_one=True)
    assert (len(batch.frames), batch.has_more, batch.end.positions) == (1, True, {"a": 2})


def test_what_has_no_room_is_not_read():
    log = log_of(a=[1_000] * 100)
    batch = page(log, Cursor({"a": 0}), room=5_500)
    assert (len(batch.frames), batch.has_more, batch.end.positions) == (5, True, {"a": 5})
    assert log.events_read <= 7


def test_who_has_missed_nothing_costs_no_read():
    log = log_of(a=[1, 1], b=[])
    batch = page(log, Cursor({"a": 2, "b": 0}))
    assert (batch.frames, batch.has_more, log.reads) == ((), False, 0)
    assert page(log, None).end.positions == {"a": 2, "b": 0}
    assert log.reads == 0


def test_events_for_others_move_the_cursor_and_nothing_else():
    log = log_of(a=[1, 1, 1])
    log.kept["a"][1] = Event("a", "message", "secret", 2, frozenset({"5"}))
    log.kept["a"][2] = Event("a", "message", "secret", 3, frozenset({"5"}))
    batch = page(log, Cursor({"a": 0}), user_id="5")
    parser = EventStreamParser()
    assert [message.data for message in parser.feed(b"".join(batch.frames))] == ["1 x"]
    assert parser.last_event_id == "a:3"
    assert len(messages(page(log, Cursor({"a": 0}), user_id="6"))) == 3
    assert len(messages(page(log, Cursor({"a": 0})))) == 3


def test_a_history_that_the_user_skips_is_read_in_bounded_pieces():
    """200,000 events for others cost one request 4,000 statements."""
    skipped = [Event("a", "message", "x", n, frozenset({"5"})) for n in range(1, 60_001)]
    last = Event("a", "message", "for all", 60_001)
    log = ListLog(
        {"a": [*skipped, last], "b": [Event("b", "message", "b", 1)]}, {"a": 60_001, "b": 1}
    )
    cursor, pages, frames = Cursor({"a": 0, "b": 0}), 0, b""
    has_more = True
    while has_more:
        reads = log.reads
        batch = page(log, cursor, user_id="5")
        # One more for each channel, to find its oldest event.
        assert log.reads - reads <= MOST_READS + 2
        assert batch.end.positions != cursor.positions
        cursor, has_more = batch.end, batch.has_more
        pages, frames = pages + 1, frames + b"".join(batch.frames)
    assert [message.data for message in EventStreamParser().feed(frames)] == ["for all", "b"]
    assert cursor.positions == {"a": 60_001, "b": 1}
    assert pages == 3


def test_what_is_not_kept_is_told_with_the_position_to_go_on_from():
    log = log_of(a=[1] * 10)
    del log.kept["a"][:5]
    [reset] = messages(page(log, Cursor({"a": 2})))
    assert reset.type == "stream-reset"
    assert '"reasons": {"a": "expired"}' in reset.data
    assert reset.last_event_id == "a:10"
    assert [m.data[0] for m in messages(page(log, Cursor({"a": 5})))] == ["6", "7", "8", "9", "1"]


def test_a_cursor_of_another_epoch_or_ahead_starts_over():
    log = log_of(a=[1] * 3)
    for cursor, reason in ((Cursor({"a": 1}, 5), "epoch"), (Cursor({"a": 9}), "ahead")):
        batch = page(log, cursor)
        [reset] = messages(batch)
        assert f'"{reason}"' in reset.data
        assert reset.last_event_id == "a:3"
        assert batch.end.positions == {"a": 3}


def test_the_beginning_is_the_oldest_event_kept_in_whatever_epoch():
    """Once the first event had expired, `a:0` gave none of those that were kept."""
    log = log_of(a=[1] * 10, b=[1] * 3)
    log.position = LogPosition(log.position.ids, epoch=7)
    del log.kept["a"][:5]
    batch = page(log, Cursor.parse("a:0"))
    assert batch.start.positions == {"a": 5, "b": 3}
    assert [m.data for m in messages(batch)] == [f"{n} x" for n in range(6, 11)]
    assert messages(batch)[0].last_event_id == "a:6,b:3,:7"


def test_the_beginning_of_a_channel_of_which_nothing_is_kept_is_its_end():
    log = log_of(a=[1] * 3, b=[])
    log.kept["a"].clear()
    batch = page(log, Cursor.parse("a:0,b:0"))
    assert (messages(batch), batch.end.positions) == ([], {"a": 3, "b": 0})


def test_zero_of_an_epoch_is_expired_where_the_first_event_is():
    log = log_of(a=[1] * 10)
    del log.kept["a"][:5]
    [reset] = messages(page(log, Cursor.parse("a:0,:0")))
    assert '"reasons": {"a": "expired"}' in reset.data


def test_pages_from_the_beginning_of_several_channels_have_all_that_is_kept():
    """The later channels of a page are read by the next one, which must know where they begin."""
    log = log_of(a=[1_000] * 9, b=[1_000] * 9)
    del log.kept["a"][:2], log.kept["b"][:4]
    cursor, found, has_more = Cursor.parse("a:0,b:0"), [], True
    while has_more:
        batch = page(log, cursor, room=2_500)
        found += messages(batch)
        cursor, has_more = batch.end, batch.has_more
    assert {m.type for m in found} == {"message"}
    assert [int(m.data.split()[0]) for m in found] == [*range(3, 10), *range(5, 10)]


def test_events_that_expire_while_the_beginning_is_read_are_passed_over():
    log = log_of(a=[1] * 10)
    read = log.read

    def read_and_expire(*arguments):
        try:
            return read(*arguments)
        finally:
            if len(log.kept["a"]) > 4:
                del log.kept["a"][:2]

    log.read = read_and_expire
    found = messages(page(log, Cursor.parse("a:0")))
    assert [m.data for m in found] == ["7 x", "8 x", "9 x", "10 x"]
