"""The publisher port: hints to whoever holds connections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

from django_eventstream.events import Event


class Publisher(ABC):
    """Tells holders of connections about events; correctness never depends on it."""

    @abstractmethod
    def publish(self, events: Sequence[Event], *, wait: bool = False) -> None:
        """Pass the events on, in order within each channel.

        Does not block the caller, raises nothing and logs failures, unless `wait` is true:
        then it returns once they were taken, or raises `PublishError`. May be called from any
        thread, never inside a transaction of the log. Events of the control channel are for hubs,
        which read them in the log as well.
        """

    def get_ready(self) -> None:  # noqa: B027
        """Start what cannot be started any more once the process ends."""

    def probe(self, ids: Mapping[str, int], users: Collection[str | None]) -> None:  # noqa: B027
        """Let streams find out what they miss of channels (name → last id).

        Those of the users (None: not logged in) ask again whether they may read. This is for what
        holds streams elsewhere: hubs look for themselves. Blocks, for a bounded time, and raises
        `PublishError` if nobody could be reached.
        """
