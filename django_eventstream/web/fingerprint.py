"""What tells one kind of request from any other, as far as anybody may have judged it by that."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from operator import itemgetter

from django.utils.module_loading import import_string

from django_eventstream.channelmanager import ChannelManagerBase
from django_eventstream.conf import settings
from django_eventstream.web.asking import Scope

DIFFERING = frozenset(
    b"last-event-id accept-encoding cache-control pragma connection keep-alive te priority date"
    b" x-request-id x-correlation-id request-id traceparent tracestate baggage sentry-trace cf-ray"
    b" x-amzn-trace-id x-cloud-trace-context b3 x-b3-traceid x-b3-spanid x-b3-sampled".split()
)
"""Headers that say nothing about who asks for what: browsers and proxies write them anew."""


def fingerprint(scope: Scope, reliable: Iterable[str]) -> bytes:
    """Return 32 bytes for a request, the channels with a log that it got, and the rules for it.

    The address of the connection counts even when there are headers of a proxy, since anybody may
    send those to a server that can be reached directly.
    """
    client = scope.get("client")
    manager: type[ChannelManagerBase] = import_string(settings.CHANNELMANAGER_CLASS)
    same = (
        # In another log revocations have other ids.
        settings.STORAGE_CLASS,
        settings.CHANNELMANAGER_CLASS,
        manager.ticket_version,
        manager.can_read_channel.__qualname__,
        manager.get_ticket_seconds.__qualname__,
        scope.get("scheme"),
        scope.get("root_path"),
        scope["path"],
        _without_cursor(scope["query_string"]),
        client[0] if client else None,
        # A client may have shown a certificate (ASGI's TLS extension).
        (scope.get("extensions") or {}).get("tls"),
        # Two of one name keep their order: Django joins them.
        sorted((h for h in scope["headers"] if h[0] not in DIFFERING), key=itemgetter(0)),
        sorted(reliable),
    )
    return sha256(repr(same).encode()).digest()


def _without_cursor(query: bytes) -> bytes:
    if b"lastEventId" not in query:
        return query
    return b"&".join(part for part in query.split(b"&") if not part.startswith(b"lastEventId="))
