"""A hold: what a view decided about a stream, for whoever keeps the connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from django_eventstream.cursors import Cursor


@dataclass(frozen=True, slots=True)
class Hold:
    """Everything that is needed to serve a stream after its request is gone."""

    reliable: tuple[str, ...]
    """Channels with a log, in the order of the cursor."""

    unreliable: tuple[str, ...]
    """Channels whose events are passed on and forgotten."""

    cursor: Cursor | None
    """Where the client stands; None to start at now."""

    user_id: str | None
    """Primary key of the user as text; None for somebody who is not logged in."""

    authorized_at: float
    """`time.monotonic()` before the channel manager was asked."""

    authorize: Callable[[], None]
    """Ask the channel manager again; raises `EventPermissionError`. Blocks."""

    ticket_seconds: int = 0
    """How long a client that was cut off may come back without being asked; 0 for not at all."""

    stamp: Callable[[], str] | None = None
    """Makes the ticket for coming back, where a wrapper would honour it; empty if it cannot now."""

    def begun(self) -> Hold:
        """Return the hold without what is needed only until the stream begins.

        The channel manager's user can have a whole request behind it.
        """
        return replace(self, cursor=None, authorize=_nobody_asks)

    def has_channel(self, channel: str) -> bool:
        """Say whether the stream reads this channel."""
        return channel in self.reliable or channel in self.unreliable


def _nobody_asks() -> None:
    raise RuntimeError("permission is asked again only before a stream begins")


EXTENSION = "django_eventstream"
"""Key of the ASGI scope's extensions under which a wrapper offers to hold streams."""


class Offer:
    """Where a view leaves a hold for a wrapper that can honour it."""

    def __init__(self) -> None:
        self.hold: Hold | None = None
        self.obstacle = "another response took its place"
        """Why the wrapper may not hold it; empty once the view's own response is being sent as
        the view made it."""
