"""Events for the hubs of this process, at once and without any broker."""

from __future__ import annotations

from collections.abc import Sequence

from django_eventstream.events import Event
from django_eventstream.hub.current import tell_hubs
from django_eventstream.publishers.base import Publisher


class LocalPublisher(Publisher):
    """Hands events to every event loop of this process, from any thread."""

    def publish(self, events: Sequence[Event], *, wait: bool = False) -> None:
        """See `Publisher.publish()`. Never fails: what a hub does not take it reads in the log."""
        batch = tuple(events)
        tell_hubs(lambda hub: hub.offer(batch))
