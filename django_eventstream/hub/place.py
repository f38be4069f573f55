"""Where clients stand on some channels, and what comes next for them.

A place has no queue. What comes next is taken from the windows of its channels when somebody can
take it, so a slow reader costs nothing but its positions: what it did not take in time it takes
from the window later, or from the log, of which it asks for one page at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence

from django_eventstream import sse
from django_eventstream.cursors import Cursor, format_cursor, resolve_start, with_ticket
from django_eventstream.hub.channel import HeldChannel
from django_eventstream.hub.portion import Portion
from django_eventstream.hub.window import Frame


class Place(ABC):
    """Belongs to one event loop."""

    __slots__ = (
        "_backlog_bytes",
        "_channels",
        "_epoch",
        "_from_oldest",
        "_notices",
        "_page",
        "_page_bytes",
        "_page_of",
        "_positions",
        "_reliable",
        "_taken",
        "is_started",
    )

    def __init__(
        self, channels: Sequence[HeldChannel], reliable: tuple[str, ...], backlog_bytes: int
    ) -> None:
        self.is_started = False
        """Whether it is known where the log stands, and so where the client does."""
        self._channels = channels
        self._reliable = reliable
        self._backlog_bytes = backlog_bytes
        self._epoch = 0
        self._from_oldest: frozenset[str] = frozenset()
        """Channels that began at the oldest event kept, and of which nothing was taken yet."""
        self._notices: list[bytes] = []
        self._page_of: HeldChannel | None = None
        """Whose page was asked for, and then kept until it has been taken: one at a time."""
        self._page: list[Frame] = []
        self._page_bytes = max((channel.page_bytes for channel in channels), default=0)
        """How much the page may have that is asked for next, or half of it."""
        self._taken = 0
        """Bytes that were taken last."""
        # An unreliable stream misses nothing that arrives while its start is being found out.
        self._positions = {
            channel.name: channel.window.last_id for channel in channels if not channel.is_reliable
        }

    @abstractmethod
    def wake(self) -> None:
        """There may be something to take."""

    @abstractmethod
    def break_off(self, error: Exception) -> None:
        """End the streams of all who stand here, because of a fault."""

    def start(
        self,
        cursor: Cursor | None,
        current_ids: Mapping[str, int],
        epoch: int,
        stamp: Callable[[], str] | None = None,
    ) -> None:
        """Begin, now that it is known where the log stands; `stamp` makes a ticket."""
        start = resolve_start(self._reliable, cursor, current_ids, epoch)
        self._positions.update(start.positions)
        self._from_oldest = start.from_oldest
        self._epoch = epoch
        self.is_started = True
        ticket = "" if stamp is None else stamp()
        self._notices.append(sse.encode_open(with_ticket(self._cursor(), ticket)))
        if start.resets:
            self._notices.append(sse.encode_reset(start.resets, self._cursor()))
        self.wake()

    def take_ticket(self, stamp: Callable[[], str] | None) -> bytes:
        """Encode where a client stands who leaves, with a ticket; nothing if it gets none."""
        # It must not pass a reset that it has not been told of.
        if stamp is None or self._notices or not self.is_started:
            return b""
        return sse.encode_position(with_ticket(self._cursor(), stamp()))

    # What the channels say

    def restart(self, reasons: Mapping[str, str], epoch: int) -> None:
        """The log went on from another place: so does the client, and is told."""
        self._epoch = epoch
        if self.is_started:
            self._reset(reasons)
            self.wake()

    def receive_page(self, channel: HeldChannel, frames: list[Frame]) -> None:
        """Take over what the window did not have."""
        if channel is self._page_of:
            self._page = _fitting(frames, self._page_bytes)
            if not frames:
                self._page_of = None
            # Next comes the turn of another one that is behind.
            self._channels = [*(each for each in self._channels if each is not channel), channel]
        self.wake()

    def history_gone(self, channel: HeldChannel, oldest: int) -> None:
        """What came next is not kept any more: the client must start over.

        One that wants whatever is kept, and has got none of it, begins there instead.
        """
        self._drop_page(channel)
        if channel.name in self._from_oldest:
            self._positions[channel.name] = oldest - 1
            # The client learns where that is, and returns there as to any other position.
            self._notices.append(sse.encode_position(self._cursor()))
        else:
            self._reset({channel.name: "expired"})
        self.wake()

    def is_behind(self, channel: HeldChannel) -> bool:
        """See `Reader.is_behind()`: whoever is not started may come back to anywhere."""
        return self._positions.get(channel.name) != channel.window.last_id

    # What comes next

    def has_more(self) -> bool:
        """Say whether there is something to take, be it that the log must be read for it."""
        if self._notices:
            return True
        positions = self._positions
        return self.is_started and any(
            channel.window.last_id != positions[channel.name] for channel in self._channels
        )

    @property
    def is_waiting(self) -> bool:
        """Whether the log is being read, or others are read for before."""
        return self._page_of is not None and not self._page

    def hold_back(self) -> None:
        """Nobody here takes more for now: keep no more for them than `backlog_bytes`."""
        self._page_bytes = self._backlog_bytes // 2
        if self._page:
            self._page = _fitting(self._page, self._backlog_bytes - self._taken)

    def take(self) -> Portion | None:
        """Go on by a bounded number of bytes, and return them; None while the log is read."""
        pieces, self._notices = self._notices, []
        skips: dict[int, Collection[str]] = {}
        room = self._backlog_bytes
        self._drop_page_if_taken()
        for turn, channel in enumerate(self._channels):
            if room <= 0:
                # Those who were not asked come first next time: a busy channel starves no other.
                self._channels = [*self._channels[turn:], *self._channels[:turn]]
                break
            room -= self._take_from(channel, pieces, skips, room)
        self._taken = self._backlog_bytes - room
        if not pieces:
            return None
        # A position alone moves the cursor and dispatches nothing.
        cursor = self._cursor() if skips else ""
        return Portion(pieces, skips, sse.encode_position(cursor) if cursor else b"")

    def _take_from(
        self,
        channel: HeldChannel,
        pieces: list[bytes],
        skips: dict[int, Collection[str]],
        room: int,
    ) -> int:
        frames = self._next_frames(channel)
        if self._notices:
            # A reset comes before any id that has the new position in it.
            pieces += self._notices
            self._notices = []
        if frames and self._from_oldest:
            self._from_oldest -= {channel.name}
        taken = 0
        for frame in frames:
            if taken >= room:
                break
            self._positions[channel.name] = frame.id
            if frame.skip_user_ids:
                skips[len(pieces)] = frame.skip_user_ids
            piece = frame.whole if len(self._channels) == 1 else self._with_cursor(frame.body)
            pieces.append(piece)
            taken += len(piece)
        self._drop_page_if_taken()
        return taken

    def _next_frames(self, channel: HeldChannel) -> list[Frame]:
        position = self._positions[channel.name]
        if channel.window.last_id == position:
            return []
        if channel is self._page_of and self._page:
            return self._page
        frames = channel.window.since(position)
        if frames is not None:
            return frames
        if not channel.is_reliable:
            self._reset({channel.name: "overflow"})
        elif self._page_of is None:
            self._page_of = channel
            self._page_bytes = min(2 * self._page_bytes, channel.page_bytes)
            channel.request(self, position, self._page_bytes)
        return []

    def _drop_page_if_taken(self) -> None:
        if self._page_of is not None and self._page:
            taken = self._positions[self._page_of.name] + 1 - self._page[0].id
            if taken > 0:
                self._page = self._page[taken:]
            if not self._page:
                self._page_of = None

    def _drop_page(self, channel: HeldChannel) -> None:
        if channel is self._page_of:
            self._page_of, self._page = None, []

    def _reset(self, reasons: Mapping[str, str]) -> None:
        self._from_oldest -= reasons.keys()
        for channel in self._channels:
            if channel.name in reasons:
                self._positions[channel.name] = channel.window.last_id
                self._drop_page(channel)
        self._notices.append(sse.encode_reset(reasons, self._cursor()))

    def _with_cursor(self, body: bytes) -> bytes:
        cursor = self._cursor()
        return body + (sse.encode_id(cursor) if cursor else b"\n")

    def _cursor(self) -> str:
        positions = ((name, self._positions[name]) for name in self._reliable)
        return format_cursor(positions, None if self._is_at_beginning() else self._epoch)

    def _is_at_beginning(self) -> bool:
        """Say whether a client that is cut off now would ask for nothing but the beginning again.

        Its cursor has no epoch then, so that this is what it asks for.
        """
        return (
            bool(self._from_oldest)
            and self._from_oldest.issuperset(self._reliable)
            and not any(self._positions[name] for name in self._reliable)
        )

    # Two places

    def is_at(self, other: Place) -> bool:
        """Say whether the same comes next at both, of the same channels."""
        return (
            self._positions == other._positions
            and self._epoch == other._epoch
            and self._from_oldest == other._from_oldest
            and not (self._notices or other._notices)
        )

    def stand_at(self, other: Place) -> None:
        """Go to the place of another of the same channels."""
        self.is_started = other.is_started
        self._epoch = other._epoch
        self._from_oldest = other._from_oldest
        self._positions = dict(other._positions)
        self._notices = list(other._notices)


def _fitting(frames: list[Frame], room: int) -> list[Frame]:
    """Return the first frames, at least one, that a place may keep for itself."""
    for count, frame in enumerate(frames, 1):
        room -= frame.size
        if room <= 0:
            return frames[:count]
    return frames
