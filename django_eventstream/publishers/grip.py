"""Events for the connections that GRIP proxies hold."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from django_eventstream import grip
from django_eventstream.conf import settings
from django_eventstream.control import parse_disconnect
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.exceptions import PublishError
from django_eventstream.proxies import channel_prefix, get_proxies
from django_eventstream.publishers.base import Publisher
from django_eventstream.publishers.items import BATCH_BYTES, Outcome
from django_eventstream.publishers.outlet import Outlet, OutletStatistics
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
        """See `Publisher.publish()`. What ends streams makes the proxies ask again for them."""
        watchman.stir()
        for change in filter(None, map(parse_disconnect, _of_control(events))):
            self.disconnect(change.user_id, change.channel)
        told = [event for event in events if event.channel != CONTROL_CHANNEL]
        bodies = [self._encode(event) for event in told]
        self._put([body for body in bodies if body], _last_ids(told), wait=wait)
        if wait and not all(bodies):
            raise PublishError(
                f"an event that is not stored is larger than a GRIP proxy takes ({BATCH_BYTES} "
                "bytes): send less, or have is_channel_reliable() of the channel manager store it"
            )

    def disconnect(self, user_id: str | None, channel: str) -> None:
        """Let the connections of a user (None: not logged in) that read a channel ask again.

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
        outcomes = [Outcome(len(bodies)) for _ in self._outlets]
        started = time.monotonic()
        for outlet, outcome in zip(self._outlets, outcomes, strict=True):
            outlet.put_later(hints)
            outlet.put(bodies, {}, outcome)
        errors = [outcome.wait(started, PROBE_SECONDS) for outcome in outcomes]
        if None not in errors:
            raise PublishError("no GRIP proxy can be reached")

    @property
    def statistics(self) -> list[OutletStatistics]:
        """What was posted, for each proxy in the order of the settings."""
        return [outlet.statistics for outlet in self._outlets]

    def _put(self, bodies: Sequence[bytes], ids: Mapping[str, int], *, wait: bool) -> None:
        if not bodies:
            return
        waited = [(outlet, Outcome(len(bodies)) if wait else None) for outlet in self._outlets]
        started = time.monotonic()
        for outlet, outcome in waited:
            outlet.put(bodies, ids, outcome)
        failures = [
            f"{outlet.proxy.control_uri} did not take the events: {error}"
            for outlet, outcome in waited
            if outcome is not None and (error := outcome.wait(started)) is not None
        ]
        if failures:
            raise PublishError("; ".join(failures))

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


def _of_control(events: Iterable[Event]) -> Iterator[Event]:
    return (event for event in events if event.channel == CONTROL_CHANNEL)


def _last_ids(events: Iterable[Event]) -> dict[str, int]:
    return {event.channel: event.id for event in events if event.id is not None}
