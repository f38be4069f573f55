"""Tickets: a client that was cut off a moment ago comes back without Django being asked.

A ticket travels as the last part of a cursor (see `cursors.py`), in the first frame of a stream
and in the last one of a server that stops. It says what Django had decided: user, channels and
response headers. Its signature covers the request as well, with all its headers but those that
differ from one connection to the next: it is good for nobody else, and a browser that has lost or
changed a cookie, as a logout does, is no more the same. Whatever is not exactly right is not
honoured, and Django is asked as ever.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from operator import itemgetter

from django.core.signing import BadSignature, Signer
from django.utils.module_loading import import_string

from django_eventstream import sse
from django_eventstream.channelmanager import ChannelManagerBase
from django_eventstream.conf import settings
from django_eventstream.cursors import MAX_CURSOR_LENGTH, Cursor, split_ticket
from django_eventstream.hold import Hold
from django_eventstream.hub.holder import Message
from django_eventstream.hub.revocations import ControlMark
from django_eventstream.proxies import is_proxy_required
from django_eventstream.web.asking import Scope
from django_eventstream.web.requests import authorize_again
from django_eventstream.web.responses import CACHE_CONTROL

SALT = "django_eventstream.ticket"

FORMAT = 1
"""Grows when older tickets cannot be read any more."""

LONGEST_LIFE = 300
"""Seconds. What the control channel said is kept for an hour, and must reach back further."""

FASTEST_CLOCK = 5
"""Seconds by which the clock of another server may be ahead."""

LONGEST = 2_000
"""Characters: servers take headers of 8,000 in all, and cookies need some of them."""

DIFFERING = frozenset(
    b"last-event-id accept-encoding cache-control pragma connection keep-alive te priority date"
    b" x-request-id x-correlation-id request-id traceparent tracestate baggage sentry-trace cf-ray"
    b" x-amzn-trace-id x-cloud-trace-context b3 x-b3-traceid x-b3-spanid x-b3-sampled".split()
)
"""Headers that say nothing about who asks for what: browsers and proxies write them anew."""

FORWARDING = frozenset((b"x-forwarded-for", b"forwarded", b"x-real-ip"))
"""Where one of them is, the connection is a proxy's, and its address says nothing."""

NOT_REPEATED = frozenset((b"set-cookie", b"content-length", b"date", b"server", b"connection"))
"""Response headers that were for one response only."""

CONSTANT = (
    (b"Content-Type", sse.CONTENT_TYPE.encode()),
    (b"Cache-Control", CACHE_CONTROL.encode()),
    (b"X-Accel-Buffering", b"no"),
)
"""What all our responses have, and tickets need not carry."""

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Returning:
    """What a ticket that is honoured stands for."""

    hold: Hold
    start: Message
    mark: ControlMark
    """Revocations up to here were heeded when it was issued."""


Marking = Callable[[], ControlMark | None]


def stamp_for(scope: Scope, start: Message, hold: Hold, mark: Marking) -> Callable[[], str] | None:
    """Return what makes tickets for this stream; None where it gets none.

    `mark()` tells up to where revocations have been heeded by whoever holds the stream.
    """
    if hold.ticket_seconds <= 0 or not hold.reliable:
        return None
    content = [
        FORMAT,
        hold.user_id,
        hold.reliable,
        hold.unreliable,
        _repeated(start["headers"]),
        min(hold.ticket_seconds, LONGEST_LIFE),
    ]
    written = json.dumps(content, separators=(",", ":")).removesuffix("]")
    return partial(_issue, _shared(written), _fingerprint(scope), mark)


def read_ticket(scope: Scope, mark: Marking) -> Returning | None:
    """Return what the ticket of a request stands for; None if it has none that is in order.

    For `mark` see `stamp_for()`: who is taken back gets tickets again.
    """
    cursor, ticket = split_ticket(_last_event_id(scope))
    if not ticket or len(ticket) > LONGEST or is_proxy_required():
        return None
    fingerprint = _fingerprint(scope)
    try:
        signed: str = _signer().unsign(f"{fingerprint}.{ticket}")
    except BadSignature:
        return None
    text = base64.urlsafe_b64decode(signed.removeprefix(f"{fingerprint}.")).decode()
    form, *content = json.loads(text)
    if form != FORMAT:
        return None
    user_id, reliable, unreliable, headers, seconds, issued, epoch, control_id = content
    if not -FASTEST_CLOCK <= time.time() - issued <= seconds:
        return None
    hold = Hold(
        reliable=tuple(reliable),
        unreliable=tuple(unreliable),
        cursor=Cursor.parse(cursor).only(reliable),
        user_id=user_id,
        authorized_at=time.monotonic(),
        authorize=partial(authorize_again, user_id, (*reliable, *unreliable)),
        ticket_seconds=seconds,
        stamp=partial(_issue, _shared(text.rsplit(",", 3)[0]), fingerprint, mark),
    )
    repeated = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    start = {"type": "http.response.start", "status": 200, "headers": [*CONSTANT, *repeated]}
    return Returning(hold, start, ControlMark(epoch, control_id))


@lru_cache(maxsize=1_024)
def _shared(text: str) -> str:
    """Return one of equals: thousands of streams differ in their fingerprints only."""
    return text


def _issue(written: str, fingerprint: str, mark: Marking) -> str:
    now = mark()
    if now is None:
        return ""
    content = f"{written},{int(time.time())},{now.epoch},{now.id}]"
    text = base64.urlsafe_b64encode(content.encode()).decode()
    signature: str = _signer().signature(f"{fingerprint}.{text}")
    ticket = f"{text}.{signature}"
    return ticket if len(ticket) <= LONGEST else ""


def _signer() -> Signer:
    return Signer(sep=".", salt=SALT)


def _fingerprint(scope: Scope) -> str:
    """Return what tells this request, and the rules it was judged by, from any other."""
    headers = scope["headers"]
    is_forwarded = any(name in FORWARDING for name, _ in headers)
    client = scope.get("client")
    manager: type[ChannelManagerBase] = import_string(settings.CHANNELMANAGER_CLASS)
    same = (
        settings.CHANNELMANAGER_CLASS,
        manager.ticket_version,
        manager.can_read_channel.__qualname__,
        scope.get("scheme"),
        scope.get("root_path"),
        scope["path"],
        _without_cursor(scope["query_string"]),
        None if is_forwarded or not client else client[0],
        # A client may have shown a certificate (ASGI's TLS extension).
        (scope.get("extensions") or {}).get("tls"),
        sorted((header for header in headers if header[0] not in DIFFERING), key=itemgetter(0)),
    )
    return sha256(repr(same).encode()).hexdigest()


def _without_cursor(query: bytes) -> bytes:
    if b"lastEventId" not in query:
        return query
    return b"&".join(part for part in query.split(b"&") if not part.startswith(b"lastEventId="))


def _last_event_id(scope: Scope) -> str:
    """Return the header, as `parse_cursor()` does; a polyfill's query is left to Django."""
    given: list[bytes] = [value for name, value in scope["headers"] if name == b"last-event-id"]
    if len(given) != 1 or len(given[0]) > MAX_CURSOR_LENGTH:
        return ""
    return given[0].decode("latin-1")


def _repeated(headers: Headers) -> list[tuple[str, str]]:
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if (name, value) not in CONSTANT and name.lower() not in NOT_REPEATED
    ]
