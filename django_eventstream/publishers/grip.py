"""Events for the connections that GRIP proxies hold."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from django_eventstream import grip
from django_eventstream.conf import settings
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.exceptions import PublishError
from django_eventstream.proxies import channel_prefix, get_proxies
from django_eventstream.publishers.base import Publisher
from django_eventstream.publishers.outlet import BATCH_BYTES, Outlet, OutletStatistics, Ticket
from django_eventstream.watchman import watchman

logger = logging.getLogger(__name__)

PROBE_SECONDS = 10.0
"""How long probes wait for one of the proxies to take them."""


class GripPublisher(Publisher):
    """Posts to every proxy of the settings, each in a thread of its own."""

    def __init__(self) -> None:
        self._prefix = channel_prefix()
        self._timeout = settings.PUBLISH_TIMEOUT
        self._outlets = [
            Outlet(proxy, self._timeout, self._encode_probe) for proxy in get_proxies()
        ]

    def publish(self, events: Sequence[Event], *, wait: bool = False) -> None:
        """See `Publisher.publish()`."""
        watchman.stir()
        told = [event for event in events if event.channel != CONTROL_CHANNEL]
        if told:
            bodies = [body for event in told if (body := self._encode(event))]
            self._put(bodies, _last_ids(told), wait=wait)

    def disconnect(self, user_id: str | None, channel: str) -> None:
        """See `Publisher.disconnect()`. The user's connections ask, and are told there.

        They are told twice, for those that were authorised just before and not yet held.
        """
        hint = [grip.encode_item(grip.recheck_item(user_id, self._prefix))]
        for outlet in self._outlets:
            outlet.put_later(hint)
        self._put(hint, {}, wait=False)

    def get_ready(self) -> None:
        """See `Publisher.get_ready()`. Threads that post begin, and end when they are idle."""
        for outlet in self._outlets:
            outlet.watch({})

    def probe(self, ids: Mapping[str, int], users: Collection[str | None]) -> None:
        """See `Publisher.probe()`. It is enough if one proxy takes it: the others try on."""
        hints = [grip.encode_item(grip.recheck_item(user, self._prefix)) for user in users]
        bodies = [*(self._encode_probe(*at) for at in ids.items()), *hints]
        tickets = [Ticket(len(bodies)) for _ in self._outlets]
        for outlet, ticket in zip(self._outlets, tickets, strict=True):
            outlet.put_later(hints)
            outlet.put(bodies, {}, ticket)
        deadline = time.monotonic() + PROBE_SECONDS
        for ticket in tickets:
            ticket.done.wait(max(0.0, deadline - time.monotonic()))
        if not any(ticket.done.is_set() and ticket.error is None for ticket in tickets):
            raise PublishError("no GRIP proxy can be reached")

    @property
    def statistics(self) -> list[OutletStatistics]:
        """What was posted, for each proxy in the order of the settings."""
        return [outlet.statistics for outlet in self._outlets]

    def _put(self, bodies: Sequence[bytes], ids: Mapping[str, int], *, wait: bool) -> None:
        if not bodies:
            return
        tickets = []
        for outlet in self._outlets:
            ticket = Ticket(len(bodies)) if wait else None
            outlet.put(bodies, ids, ticket)
            if ticket is not None:
                tickets.append((outlet, ticket))
        for outlet, ticket in tickets:
            ticket.done.wait()
            if ticket.error is not None:
                raise PublishError(
                    f"{outlet.proxy.control_uri} did not take the events: {ticket.error}"
                ) from ticket.error

    def _encode(self, event: Event) -> bytes:
        body = grip.encode_item(grip.event_item(event, self._prefix))
        if len(body) <= BATCH_BYTES:
            return body
        logger.warning(
            "Event %s on %r is %d bytes as an item, more than a GRIP proxy takes%s",
            event.id,
            event.channel,
            len(body),
            "" if event.id is None else ": streams are told to get it from the log",
        )
        if event.id is None:
            return b""
        # A comment in its place, by which streams find that they miss something.
        return self._encode_probe(event.channel, event.id)

    def _encode_probe(self, channel: str, last_id: int) -> bytes:
        return grip.encode_item(grip.probe_item(channel, last_id, self._prefix))


def _last_ids(events: Iterable[Event]) -> dict[str, int]:
    return {event.channel: event.id for event in events if event.id is not None}
