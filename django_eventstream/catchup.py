"""What a client missed, read for an answer that is not held open here.

One plan for every such answer: pages of a stream behind a GRIP proxy, long polling, history.
Whoever asks says how many bytes it can carry; what is beyond them comes with the next page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from django_eventstream import sse
from django_eventstream.cursors import Cursor, format_cursor, resolve_start
from django_eventstream.events import Event
from django_eventstream.exceptions import HistoryGoneError, StorageUnavailableError
from django_eventstream.hold import Hold
from django_eventstream.storage.base import LogPosition, Storage

PAGE_SIZE = 50
"""Most events of one read."""

SKIPPED_PAGE_SIZE = 500
"""The same behind a page of which the client gets nothing."""

MOST_READS = 50
"""Of one answer: a client that skips very many events reads on with the next one."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One page of what a client missed."""

    start: Cursor
    """Where the page begins."""

    frames: tuple[bytes, ...]
    """Resets and events in order, encoded, each with its cursor."""

    end: Cursor
    """Where the page ends; the next one begins there."""

    has_more: bool
    """Whether the log has events that did not fit any more, or were not looked at."""


def catch_up(
    storage: Storage, hold: Hold, position: LogPosition, *, room: int, at_least_one: bool
) -> Batch:
    """Read what comes after the hold's cursor, up to `room` bytes of encoded events.

    Events that this user skips take no room, but a batch ends after `MOST_READS` pages of them.
    `position` is where the log stands for the hold's reliable channels. With `at_least_one`, an
    event that alone is larger than the room is not put off. Raises `StorageUnavailableError`.
    """
    return _CatchUp(storage, hold, position).run(room, at_least_one=at_least_one)


def read_oldest(
    storage: Storage,
    channel: str,
    after: int,
    current: int,
    limit: int,
    max_bytes: int | None = None,
) -> tuple[int, list[Event]]:
    """Read the oldest events that are kept, of those from `after` to `current`.

    Returns the last id before them, and the events: none where nothing is kept.
    """
    while after < current:
        try:
            return after, storage.read(channel, after, limit, max_bytes)
        except HistoryGoneError as gone:
            # Trimming may go on meanwhile: each turn begins later, and `current` stays.
            after = max(after + 1, gone.oldest - 1)
    return after, []


class _CatchUp:
    def __init__(self, storage: Storage, hold: Hold, position: LogPosition) -> None:
        self._storage = storage
        self._hold = hold
        self._current = position.ids
        self._epoch = position.epoch
        start = resolve_start(hold.reliable, hold.cursor, position.ids, position.epoch)
        self._positions = dict(start.positions)
        self._from_oldest = start.from_oldest
        for name in start.from_oldest:
            # Known before the first word: a position that is told or signed is an ordinary one.
            self._positions[name], _ = self._read_oldest(name, limit=1, room=1)
        self._start = self._as_cursor()
        self._frames: list[bytes] = []
        self._has_news = False
        self._room = 0
        self._reads_left = MOST_READS
        if start.resets:
            self._add(sse.encode_reset(start.resets, self._cursor()))

    def run(self, room: int, *, at_least_one: bool) -> Batch:
        self._room = room
        has_more = False
        for name in self._hold.reliable:
            for event in self._events(name):
                frame = self._take(event)
                self._room -= len(frame)
                if self._room < 0 and (self._has_news or not at_least_one):
                    has_more = True
                    break
                self._positions[name] = event.id or 0
                self._add(frame)
                self._has_news = self._has_news or bool(frame)
            has_more = has_more or self._reads_left < 0
            self._acknowledge_skipped()
            if has_more:
                break
        return Batch(self._start, tuple(self._frames), self._as_cursor(), has_more)

    def _events(self, name: str) -> Iterator[Event]:
        is_first = name in self._from_oldest
        limit = PAGE_SIZE
        # Most who ask have missed nothing, and must not cost more than the one question.
        while self._positions[name] < self._current[name]:
            # Events without room are not read either, but for the one that shows it.
            room = max(1, self._room)
            self._reads_left -= 1
            if self._reads_left < 0:
                return
            before = len(self._frames)
            try:
                if is_first:
                    self._positions[name], found = self._read_oldest(name, limit, room)
                else:
                    found = self._storage.read(name, self._positions[name], limit, room)
            except HistoryGoneError as gone:
                self._positions[name] = max(self._current[name], gone.oldest - 1)
                self._add(sse.encode_reset({name: "expired"}, self._cursor()))
                continue
            if found and found[0].epoch not in (None, self._epoch):
                raise StorageUnavailableError("the event log has begun anew meanwhile")
            yield from found
            if not found:
                return
            is_first = False
            limit = SKIPPED_PAGE_SIZE if len(self._frames) == before else PAGE_SIZE

    def _read_oldest(self, name: str, limit: int, room: int) -> tuple[int, list[Event]]:
        after, current = self._positions[name], self._current[name]
        return read_oldest(self._storage, name, after, current, limit, room)

    def _take(self, event: Event) -> bytes:
        """Encode an event with the cursor behind it; nothing if it is not for this user."""
        if self._hold.user_id is not None and self._hold.user_id in event.skip_user_ids:
            return b""
        cursor = self._cursor({event.channel: event.id or 0})
        return sse.encode(event.type, event.data, cursor)

    def _acknowledge_skipped(self) -> None:
        """Move the client past events that are not for it: an id alone dispatches nothing."""
        if self._positions == dict(self._start.positions):
            return
        cursor = self._cursor()
        if not (self._frames and self._frames[-1].endswith(sse.encode_id(cursor))):
            self._add(sse.encode_position(cursor))

    def _add(self, frame: bytes) -> None:
        if frame:
            self._frames.append(frame)

    def _as_cursor(self) -> Cursor:
        return Cursor(dict(self._positions), self._epoch)

    def _cursor(self, moved: Mapping[str, int] | None = None) -> str:
        positions = {**self._positions, **(moved or {})}
        return format_cursor(((n, positions[n]) for n in self._hold.reliable), self._epoch)
