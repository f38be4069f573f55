"""Whose turn it is to be read for: first come, first served, page by page, over all channels."""

from __future__ import annotations

from collections import deque

from django_eventstream.hub.channel import HeldChannel, Wish


class ReadQueue:
    """The wishes of one hub. A reader that wants another page waits behind all that wait now.

    A channel has one read at a time. Those who want something of a channel whose read takes long
    hold up nobody, and keep their turn.
    """

    def __init__(self) -> None:
        self._waiting: deque[Wish] = deque()
        self._put_off: dict[HeldChannel, list[Wish]] = {}
        """Of each channel that is being read, those whose turn came meanwhile."""

    def add(self, wish: Wish) -> None:
        """Let this one wait for its turn."""
        self._waiting.append(wish)

    def take(self) -> Wish | None:
        """Return whose turn it is; its channel is being read from now on, until `release()`."""
        while self._waiting:
            wish = self._waiting.popleft()
            if not wish.is_wanted():
                continue
            if wish.channel not in self._put_off:
                self._put_off[wish.channel] = []
                return wish
            self._put_off[wish.channel].append(wish)
        return None

    def release(self, channel: HeldChannel) -> None:
        """The read is over: whoever was put off for it has the next turns."""
        self._waiting.extendleft(reversed(self._put_off.pop(channel, [])))

    def clear(self) -> None:
        """Nobody waits any more, and nothing is read."""
        self._waiting.clear()
        self._put_off.clear()
