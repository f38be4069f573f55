"""The feed port: news of other processes, for the hubs of this one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Protocol

from django_eventstream.events import Event


class Listener(Protocol):
    """A hub, as a feed sees it. Its methods are for the thread of its event loop."""

    def offer(self, events: Iterable[Event]) -> None:
        """Take events that somebody passed on; they may be old, doubled or out of order."""

    def hint(self, channel: str, last_id: int, log: str | None = None) -> None:
        """Learn that a channel of the log (None: of ours) has reached an id."""

    def look(self) -> None:
        """Ask the log now: news may have been missed."""


class Feed(ABC):
    """Hears of events of other processes. It may repeat, reorder and miss them."""

    @abstractmethod
    async def follow(self, listener: Listener) -> None:
        """Pass news on until cancelled.

        Never returns and never raises because of a broker: it connects again, with growing
        pauses, and calls `look()` whenever it may have missed something. One feed object serves
        one hub; it is used again after it was cancelled.
        """
