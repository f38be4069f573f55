"""A channel that a hub holds: its window, its connections, and what it must read from the log.

Everything that arrives from outside is a hint "the channel has reached id n", which may carry
the event along. The channel takes what fits on to its window and wishes for the rest to be read
from the log. What is read for one goes to all who wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from django_eventstream.events import Event
from django_eventstream.exceptions import HistoryGoneError
from django_eventstream.hub.turn import Breakable
from django_eventstream.hub.window import Frame, Window

PAGE_EVENTS = 2_000
"""Most events of one read."""

USUAL_SIZE = 1_024
"""Bytes of an event, before any has been read: the first page is small, and the first to come."""

PAGES_IN_WINDOW = 4
"""A read aims at this part of a window, so that readers keep up while a channel catches up."""


class Reader(Breakable, Protocol):
    """A connection, as its channel sees it."""

    def wake(self) -> None:
        """There may be something to take."""

    def restart(self, reasons: Mapping[str, str], epoch: int) -> None:
        """The log has gone on from another place on these channels (channel → reason)."""

    def receive_page(self, channel: HeldChannel, frames: list[Frame]) -> None:
        """Here is what was missing before the window."""

    def history_gone(self, channel: HeldChannel, oldest: int) -> None:
        """What was missing before `oldest` is not kept any more."""

    def is_behind(self, channel: HeldChannel) -> bool:
        """Whether it has not taken, or may want, what the window has."""


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """That a page of the log be read."""

    channel: HeldChannel
    reader: Reader | None
    """Who waits for it; None: the window, which is behind."""
    position: int
    """After which id; that of a window may have moved on when it is read for."""
    max_bytes: int

    def is_wanted(self) -> bool:
        """Say whether it has not been fulfilled meanwhile, by what was read for others."""
        return self.channel.waiting.get(self.reader) is self

    @property
    def limit(self) -> int:
        """How many events to read at once, going by the size of those read last.

        The log ends a page where it is full; this spares it from looking beyond.
        """
        return max(1, min(PAGE_EVENTS, self.max_bytes // self.channel.mean_size))


class HeldChannel:
    """Belongs to one event loop; nothing in it waits."""

    def __init__(
        self,
        name: str,
        *,
        is_reliable: bool,
        window_bytes: int,
        schedule: Callable[[Wish], None],
        settle: Callable[[HeldChannel], None],
        listener: Callable[[Event], None] | None = None,
        missed: Callable[[], None] | None = None,
    ) -> None:
        """`settle()` is called when the window has more than before, or less.

        `listener` hears every event, and `missed()` says that there were some it never will.
        """
        self.name = name
        self.is_reliable = is_reliable
        self.readers: dict[Reader, None] = {}
        self.window = Window(0, window_bytes, keeps_last=not is_reliable)
        self.is_positioned = not is_reliable
        """Whether the window's last id is known: a log is asked first."""
        self.positioned_at = time.monotonic()
        """What was stored before may never come by."""
        self.target = 0
        """Highest id that a hint spoke of."""
        self.waiting: dict[Reader | None, Wish] = {}
        """Those who need events that the window does not have; None is the window itself."""
        self.page_bytes = window_bytes // PAGES_IN_WINDOW
        """What a read aims at."""
        self.mean_size = USUAL_SIZE
        self.life = 0
        """Grows when the channel goes on from another place: what was read before is void."""
        self._epoch = 0
        self._schedule = schedule
        self._settle = settle
        self._listener = listener
        self._missed = missed
        self._target_when_asked = 0

    def has_somebody_behind(self) -> bool:
        """Say whether somebody would have to do without what the window has."""
        return any(reader.is_behind(self) for reader in self.readers)

    # What hints say

    def position(self, last_id: int, epoch: int) -> None:
        """Learn where the log stands before anything else is known."""
        self._epoch = epoch
        self._restart_window(last_id)
        self.is_positioned = True
        self.positioned_at = time.monotonic()
        self.hint(last_id)
        self._wake_all()

    def restart(self, last_id: int, epoch: int) -> None:
        """Go on from another place, because the log was restored from a backup."""
        self.life += 1
        self.target = last_id
        self.waiting.clear()
        # Nobody tells a listener that it must start over: it hears what came meanwhile.
        start = last_id if self._listener is None else min(last_id, self.window.last_id)
        has_gone_back = last_id < self.window.last_id
        self.position(start, epoch)
        self.hint(last_id)
        if has_gone_back:
            # Nobody knows what was sent since the backup: its ids have been passed already.
            self._tell_missed()

    def forget(self, reader: Reader) -> None:
        """A connection has left."""
        self.readers.pop(reader, None)
        self.waiting.pop(reader, None)

    def offer(self, event: Event) -> None:
        """Take an event that somebody passed on."""
        if not self.is_reliable:
            self._extend([event], [Frame(event, self.window.last_id + 1, self._epoch)])
        elif event.id is not None:
            if self.is_positioned and event.id == self.window.last_id + 1:
                self._extend([event], [Frame(event, event.id, self._epoch)])
            self.hint(event.id)

    def hint(self, last_id: int) -> None:
        """Learn that the log has reached `last_id`."""
        self.target = max(self.target, last_id)
        if self.is_positioned and self.target > self.window.last_id and None not in self.waiting:
            self._wish(Wish(self, None, self.window.last_id, self.page_bytes))

    def request(self, reader: Reader, position: int, max_bytes: int) -> None:
        """Read for `reader` what comes after `position`, which the window does not have."""
        self._wish(Wish(self, reader, position, max_bytes))

    def _wish(self, wish: Wish) -> None:
        self.waiting[wish.reader] = wish
        self._schedule(wish)

    # What must be read

    def begin_read(self, wish: Wish) -> int | None:
        """Say after which id to read from the log now; None if nobody needs it any more."""
        if not wish.is_wanted():
            return None
        self._target_when_asked = self.target
        if wish.reader is not None:
            return wish.position
        if self.target > self.window.last_id and self._is_held():
            return self.window.last_id
        del self.waiting[None]
        return None

    def take_read(self, wish: Wish, after: int, events: Sequence[Event]) -> None:
        """Pass on what was read after `after`: to the window, and to those who waited."""
        if not self._is_held():
            # Nobody would ever release what the window took now.
            return
        frames = [Frame(event, event.id or 0, self._epoch) for event in events]
        end = after + len(frames)
        if frames:
            self.mean_size = max(1, sum(frame.size for frame in frames) // len(frames))
        if after <= self.window.last_id < end:
            known = self.window.last_id - after
            self._extend(events[known:], frames[known:])
        if self.window.prepend(frames):
            self._settle(self)
        if not frames and self.target == self._target_when_asked:
            # The log has less than a hint said, and it is the log that counts.
            self.target = self.window.last_id
        for reader, other in list(self.waiting.items()):
            position = other.position
            is_read = after <= position <= end or position >= self.window.first_id - 1
            if reader is not None and is_read:
                del self.waiting[reader]
                reader.receive_page(self, frames[position - after :] if position < end else [])
        self._is_read_for(wish)

    def _is_read_for(self, wish: Wish) -> None:
        if wish.reader is None and wish.is_wanted():
            del self.waiting[None]
            # Another page of it waits for its turn, as everybody does.
            self.hint(self.target)

    def take_gone(self, wish: Wish, gone: HistoryGoneError) -> None:
        """Learn that the log keeps nothing before `gone.oldest`."""
        if self.window.last_id < gone.oldest - 1:
            self._restart_window(gone.oldest - 1)
            self.positioned_at = time.monotonic()
            self._wake_all()
            self._tell_missed()
        for reader, other in list(self.waiting.items()):
            if reader is not None and other.position < gone.oldest - 1:
                del self.waiting[reader]
                reader.history_gone(self, gone.oldest)
        self._is_read_for(wish)

    def _is_held(self) -> bool:
        return bool(self.readers) or self._listener is not None

    def _extend(self, events: Sequence[Event], frames: list[Frame]) -> None:
        self.window.append(frames)
        self._settle(self)
        if self._listener is not None:
            for event in events:
                self._listener(event)
        self._wake_all()

    def _restart_window(self, last_id: int) -> None:
        self.window.restart(last_id)
        self._settle(self)

    def _tell_missed(self) -> None:
        if self._missed is not None:
            self._missed()

    def _wake_all(self) -> None:
        for reader in list(self.readers):
            reader.wake()
