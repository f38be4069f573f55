"""What all windows of a hub keep together is bounded."""

from __future__ import annotations

from django_eventstream.hub.channel import HeldChannel

PART_KEPT = 7 / 8
"""So much of the budget is left when windows were released: that is looked for rarely, then."""


class WindowBudget:
    """Releases windows when all of them have more than `max_bytes`. Belongs to one event loop.

    Whole windows go, and first those that nobody is behind in, the longest without news first.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        """What is kept now."""
        self._max_bytes = max_bytes
        self._sizes: dict[HeldChannel, int] = {}
        """The window that grew last is the last one."""

    def settle(self, channel: HeldChannel) -> None:
        """Learn that this channel's window has more now, or less."""
        size = channel.window.bytes
        self.bytes += size - self._sizes.pop(channel, 0)
        if size:
            self._sizes[channel] = size
        if self.bytes > self._max_bytes:
            self._release_others(channel)

    def forget(self, channel: HeldChannel) -> None:
        """The channel is not held any more."""
        self.bytes -= self._sizes.pop(channel, 0)

    def clear(self) -> None:
        """No channel is held any more."""
        self._sizes.clear()
        self.bytes = 0

    def _release_others(self, newest: HeldChannel) -> None:
        others = [channel for channel in self._sizes if channel is not newest]
        for channel in sorted(others, key=_loss):
            if self.bytes <= self._max_bytes * PART_KEPT:
                return
            self.bytes -= self._sizes.pop(channel)
            channel.window.release()


def _loss(channel: HeldChannel) -> int:
    """Say how bad it is to release its window: 1, the log must be read; 2, nobody has it."""
    return 0 if not channel.has_somebody_behind() else 1 if channel.is_reliable else 2
