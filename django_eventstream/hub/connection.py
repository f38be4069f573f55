"""One held connection: where it stands on each channel, and what it is to be sent next.

It has no queue. It takes from the windows of its channels when it can send, so a slow reader
costs nothing but its positions: what it did not take in time it takes from the window later,
or from the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from django_eventstream import sse
from django_eventstream.cursors import format_cursor, resolve_start
from django_eventstream.exceptions import EventStreamError
from django_eventstream.hold import Hold
from django_eventstream.hub.channel import HeldChannel
from django_eventstream.hub.window import Frame


class Connection:
    """Belongs to one event loop. Whoever sends calls `take()` until it is empty, then waits."""

    def __init__(
        self,
        hold: Hold,
        channels: Mapping[str, HeldChannel],
        *,
        wake: Callable[[], None],
        backlog_bytes: int,
    ) -> None:
        self.hold = hold
        self.is_ended = False
        """Nothing more will come after what `take()` returns next."""
        self.joined_at = time.monotonic()
        self._channels = list(channels.values())
        self._wake = wake
        self._backlog_bytes = backlog_bytes
        self._positions: dict[str, int] = {}
        self._epoch = 0
        self._started = False
        self._notices: list[bytes] = []
        self._pages: dict[str, list[Frame]] = {}
        self._is_single = len(channels) == 1
        # An unreliable stream misses nothing that arrives while its start is being found out.
        for name in hold.unreliable:
            self._positions[name] = channels[name].window.last_id

    # What the hub says

    def wake(self) -> None:
        """There may be something to take."""
        self._wake()

    def start(self, current_ids: Mapping[str, int], epoch: int) -> None:
        """Begin, now that it is known where the log stands."""
        start = resolve_start(self.hold.reliable, self.hold.cursor, current_ids, epoch)
        self._positions.update(start.positions)
        self._epoch = epoch
        self._started = True
        self._notices.append(sse.encode_open(self._cursor()))
        if start.resets:
            self._notices.append(sse.encode_reset(start.resets, self._cursor()))
        self._wake()

    def restart(self, reasons: Mapping[str, str], epoch: int) -> None:
        """The log went on from another place: so does the client, and is told."""
        self._epoch = epoch
        if self._started:
            self._reset(reasons)
            self._wake()

    def receive_page(self, channel: HeldChannel, frames: list[Frame]) -> None:
        """Take over what the window did not have."""
        if frames:
            room = channel.page_bytes // len(self._channels)
            self._pages[channel.name] = _fitting(frames, room)
        self._wake()

    def history_gone(self, channel: HeldChannel, oldest: int) -> None:
        """What came next is not kept any more: the client must start over."""
        self._reset({channel.name: "expired"})
        self._wake()

    def keep_alive(self) -> None:
        """Send a sign of life, unless one still waits for a slow reader."""
        if self._started and sse.KEEP_ALIVE not in self._notices:
            self._notices.append(sse.KEEP_ALIVE)
            self._wake()

    def fail(self, error: EventStreamError) -> None:
        """End for good with a `stream-error`."""
        if not self.is_ended:
            self.is_ended = True
            self._notices = [sse.encode_error(error.condition, str(error), error.channels)]
            self._wake()

    def drain(self, retry: int) -> None:
        """End at an event boundary; the client comes back after `retry` milliseconds."""
        if not self.is_ended:
            self.is_ended = True
            self._notices.append(sse.encode_retry(retry))
            self._wake()

    # What the sender asks

    def take(self) -> bytes:
        """Return what to send now, a bounded number of bytes; empty if there is nothing."""
        chunks, self._notices = self._notices, []
        if self.is_ended or not self._started:
            return b"".join(chunks)
        room = self._backlog_bytes
        for turn, channel in enumerate(self._channels):
            if room <= 0:
                # Those who were not asked come first next time: a busy channel starves no other.
                self._channels = self._channels[turn:] + self._channels[:turn]
                break
            room -= self._take_from(channel, chunks, room)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _take_from(self, channel: HeldChannel, chunks: list[bytes], room: int) -> int:
        frames = self._next_frames(channel)
        if self._notices:
            # A reset comes before any id that has the new position in it.
            chunks += self._notices
            self._notices = []
        taken = 0
        skipped = False
        for frame in frames:
            if taken >= room:
                break
            self._positions[channel.name] = frame.id
            skipped = self.hold.user_id is not None and self.hold.user_id in frame.skip_user_ids
            if not skipped:
                chunk = frame.whole if self._is_single else self._with_cursor(frame.body)
                chunks.append(chunk)
                taken += len(chunk)
        self._drop_page_if_taken(channel.name)
        if skipped and channel.is_reliable:
            # An id alone moves the cursor and dispatches nothing.
            chunks.append(sse.encode_id(self._cursor()))
        return taken

    def _next_frames(self, channel: HeldChannel) -> list[Frame]:
        position = self._positions[channel.name]
        if channel.window.last_id == position:
            return []
        page = self._pages.get(channel.name)
        if page is not None:
            ahead = page[max(0, position + 1 - page[0].id) :]
            if ahead:
                return ahead
            del self._pages[channel.name]
        frames = channel.window.since(position)
        if frames is not None:
            return frames
        if channel.is_reliable:
            channel.request(self, position)
        else:
            self._reset({channel.name: "overflow"})
        return []

    def _drop_page_if_taken(self, name: str) -> None:
        page = self._pages.get(name)
        if page is not None and page[-1].id <= self._positions[name]:
            del self._pages[name]

    def _reset(self, reasons: Mapping[str, str]) -> None:
        for channel in self._channels:
            if channel.name in reasons:
                self._positions[channel.name] = channel.window.last_id
                self._pages.pop(channel.name, None)
        self._notices.append(sse.encode_reset(reasons, self._cursor()))

    def _with_cursor(self, body: bytes) -> bytes:
        cursor = self._cursor()
        return body + (sse.encode_id(cursor) if cursor else b"\n")

    def _cursor(self) -> str:
        return format_cursor(
            ((name, self._positions[name]) for name in self.hold.reliable), self._epoch
        )


def _fitting(frames: list[Frame], room: int) -> list[Frame]:
    """Return the first frames, at least one, that a connection may keep for itself."""
    for count, frame in enumerate(frames, 1):
        room -= frame.size
        if room <= 0:
            return frames[:count]
    return frames
