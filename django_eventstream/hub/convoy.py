"""Connections that travel together: what comes next is prepared once, and sent to all of them.

Those who hold the same channels and stand at the same place are one convoy, which reads its
channels as if it were one client: a delivery to ten thousand is ten thousand calls of `send()`,
and next to nothing else. Whoever is still busy with what it was sent stays behind, in a convoy
that goes at its own pace, and joins the others again where it has caught up. A newcomer is a
convoy of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from django_eventstream.hub.channel import HeldChannel
from django_eventstream.hub.place import Place
from django_eventstream.hub.turn import NextTurn

PATIENCE_SECONDS = 1.0
"""A client that takes nothing for so long is a slow one: no page is kept for it."""

Names = tuple[tuple[str, ...], tuple[str, ...]]
"""The reliable channels of a stream, and the others."""


class Member(Protocol):
    """A connection, as its convoy sees it."""

    convoy: Convoy
    user_id: str | None
    is_busy: bool
    """It was sent something that its client has not taken; it says when by `Convoy.ready()`."""
    send: Callable[[bytes], bool]
    """Passes bytes on; False if the member is busy with them from now on."""

    def break_off(self, error: Exception) -> None:
        """End, because of a fault."""


class Convoy(Place):
    """Belongs to one event loop. It is gone when its last member is."""

    __slots__ = ("_convoys", "_is_noted", "members", "names")

    def __init__(self, convoys: Convoys, names: Names, channels: Sequence[HeldChannel]) -> None:
        super().__init__(channels, names[0], convoys.backlog_bytes)
        self.names = names
        self.members: dict[Member, None] = {}
        self._convoys = convoys
        self._is_noted = False
        for channel in channels:
            channel.readers[self] = None

    def wake(self) -> None:
        """There may be something to take."""
        if not self._is_noted:
            self._is_noted = True
            self._convoys.turn.note(self)

    def ready(self) -> None:
        """A member is not busy any more."""
        if self in self._convoys.held_up:
            self.wake()

    def leave(self, member: Member) -> None:
        """Forget a member."""
        self.members.pop(member, None)
        if not self.members:
            self._disband()

    def serve(self) -> None:
        """Send what comes next to all members, as far as they take it at once."""
        self._is_noted = False
        while self.members and self.has_more():
            ready = [member for member in self.members if not member.is_busy]
            if not ready:
                self._convoys.hold_up(self)
                return
            self._convoys.held_up.pop(self, None)
            if len(ready) < len(self.members):
                self._leave_behind([member for member in self.members if member.is_busy])
            portion = self.take()
            if portion is None:
                return
            skipped = portion.skipped
            for member in ready:
                chunk = portion.for_user(member.user_id) if skipped else portion.whole
                if chunk:
                    member.is_busy = not member.send(chunk)
        self._convoys.held_up.pop(self, None)
        if self.members and self.is_started:
            self._convoys.settle(self)

    def break_off(self, error: Exception) -> None:
        """End all members' streams, because of a fault."""
        for member in list(self.members):
            member.break_off(error)

    def take_over(self, members: Iterable[Member]) -> None:
        """Make members of this convoy who stand where it stands."""
        for member in members:
            self.members[member] = None
            member.convoy = self

    def absorb(self, other: Convoy) -> None:
        """Take over all members of another convoy, which stands at the same place."""
        self.take_over(other.members)
        other.members = {}
        other._disband()

    def _leave_behind(self, busy: Iterable[Member]) -> None:
        behind = Convoy(self._convoys, self.names, self._channels)
        behind.stand_at(self)
        behind.take_over(busy)
        self._convoys.hold_up(behind)
        for member in behind.members:
            del self.members[member]

    def _disband(self) -> None:
        for channel in self._channels:
            channel.forget(self)
        self._convoys.forget(self)


class Convoys:
    """The convoys of one event loop."""

    def __init__(self, turn: NextTurn, backlog_bytes: int) -> None:
        self.turn = turn
        self.backlog_bytes = backlog_bytes
        """Most bytes that are sent to a member at once, but for the event that exceeds them."""
        self.held_up: dict[Convoy, float] = {}
        """There is more for them, and everybody in them is busy; since when, the longest first."""
        self._fronts: dict[Names, Convoy] = {}
        """Of each set of channels the convoy that had caught up last."""
        self._loop = asyncio.get_running_loop()
        self._is_timed = False

    def settle(self, convoy: Convoy) -> None:
        """Join a convoy that has caught up with those who stand where it stands."""
        front = self._fronts.get(convoy.names, convoy)
        if front is not convoy and front.is_at(convoy):
            smaller, convoy = sorted((front, convoy), key=_size)
            convoy.absorb(smaller)
        self._fronts[convoy.names] = convoy

    def hold_up(self, convoy: Convoy) -> None:
        """There is more for it, and all its members are busy."""
        self.held_up.setdefault(convoy, self._loop.time())
        if not self._is_timed:
            self._look_again(PATIENCE_SECONDS)

    def forget(self, convoy: Convoy) -> None:
        """It has no members any more."""
        self.held_up.pop(convoy, None)
        if self._fronts.get(convoy.names) is convoy:
            del self._fronts[convoy.names]

    def _look_again(self, seconds: float) -> None:
        # One timer for all: most are held up for a moment only.
        self._is_timed = True
        self._loop.call_later(seconds, self._hold_back)

    def _hold_back(self) -> None:
        self._is_timed = False
        now = self._loop.time()
        for convoy, since in self.held_up.items():
            if now - since < PATIENCE_SECONDS:
                self._look_again(since + PATIENCE_SECONDS - now)
                return
            convoy.hold_back()


def _size(convoy: Convoy) -> int:
    return len(convoy.members)
