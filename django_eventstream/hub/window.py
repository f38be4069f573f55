"""A channel's most recent events, encoded once, for every connection that reads it."""

from __future__ import annotations

from collections.abc import Sequence

from django_eventstream import sse
from django_eventstream.cursors import format_cursor
from django_eventstream.events import Event

FRAME_BYTES = 160
"""What Python needs for a frame besides its text, measured."""

USER_BYTES = 100
"""And for each user who does not get it."""


class Frame:
    """One encoded event."""

    __slots__ = ("_body_size", "id", "skip_user_ids", "whole")

    def __init__(self, event: Event, id: int, epoch: int) -> None:  # noqa: A002
        self.id = id
        body = sse.encode_body(event.type, event.data)
        cursor = "" if event.id is None else format_cursor([(event.channel, event.id)], epoch)
        self.whole = body + (sse.encode_id(cursor) if cursor else b"\n")
        """As it is sent on a stream of this channel only."""
        self.skip_user_ids = event.skip_user_ids
        self._body_size = len(body)

    @property
    def body(self) -> bytes:
        """Without its end, for streams whose `id:` line has more than this channel."""
        return self.whole[: self._body_size]

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, near enough."""
        return len(self.whole) + FRAME_BYTES + USER_BYTES * len(self.skip_user_ids)


PART_KEPT = 4 / 5
"""So much of a full window is left when the oldest go: moving the others costs little, then."""


class Window:
    """Frames with consecutive ids that end at `last_id`; the oldest go when it is full."""

    def __init__(self, last_id: int, max_bytes: int, *, keeps_last: bool = False) -> None:
        self.last_id = last_id
        self._keeps_last = keeps_last
        self._frames: list[Frame] = []
        self.bytes = 0
        """What the frames take in memory, near enough."""
        self._max_bytes = max_bytes

    @property
    def first_id(self) -> int:
        """Id of the oldest frame; of the next one to come while there is none."""
        return self.last_id - len(self._frames) + 1

    def append(self, frames: Sequence[Frame]) -> None:
        """Add frames that follow directly after `last_id`."""
        self._frames.extend(frames)
        self.bytes += sum(frame.size for frame in frames)
        self.last_id += len(frames)
        if self.bytes > self._max_bytes:
            self._shrink()

    def prepend(self, frames: Sequence[Frame]) -> bool:
        """Add older frames, if they reach up to what is there and fit in; say whether they do."""
        fitting = [frame for frame in frames if frame.id < self.first_id]
        size = sum(frame.size for frame in fitting)
        reaches = bool(fitting) and fitting[-1].id == self.first_id - 1
        fits = reaches and self.bytes + size <= self._max_bytes
        if fits:
            self._frames[:0] = fitting
            self.bytes += size
        return fits

    def since(self, last_id: int) -> list[Frame] | None:
        """Return the frames after `last_id`, or None if the window does not reach back to it."""
        start = last_id + 1 - self.first_id
        return None if start < 0 else self._frames[start:]

    def restart(self, last_id: int) -> None:
        """Forget everything and go on after `last_id`."""
        self._frames.clear()
        self.bytes = 0
        self.last_id = last_id

    def release(self) -> None:
        """Forget all frames, and go on after them."""
        self.restart(self.last_id)

    def _shrink(self) -> None:
        surplus = 0
        # What is stored nowhere else stays until the next one, however large.
        most = len(self._frames) - self._keeps_last
        while surplus < most and self.bytes > self._max_bytes * PART_KEPT:
            self.bytes -= self._frames[surplus].size
            surplus += 1
        del self._frames[:surplus]
