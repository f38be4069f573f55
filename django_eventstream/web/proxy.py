"""Whether a request comes through a GRIP proxy, and what the proxy says about it."""

from __future__ import annotations

import time
from functools import lru_cache

import jwt
from django.http import HttpRequest

from django_eventstream.grip import (
    Position,
    parse_last,
    parse_position,
    parse_position_of_predecessor,
)
from django_eventstream.proxies import Proxy, can_verify, channel_prefix, get_proxies
from django_eventstream.web.proofs import is_proven

ALGORITHMS = ["HS256", "RS256", "ES256"]


def is_proxied(request: HttpRequest) -> bool:
    """Say whether a proxy will act on GRIP headers in the answer.

    Where no proxy has a key this is what the request claims: whoever lies gets GRIP headers,
    which tell nothing, and no stream.
    """
    if can_verify():
        return is_verified(request)
    return bool(get_proxies()) and (
        "Grip-Sig" in request.headers or "Grip-Feature" in request.headers
    )


def is_verified(request: HttpRequest) -> bool:
    """Say whether the request came through a configured proxy, which signed it.

    That is no word on its headers: the client may have written any that the proxy lets pass.
    """
    signature = request.headers.get("Grip-Sig", "")
    return bool(signature) and any(_signed_by(proxy, signature) for proxy in get_proxies())


def is_recovery(request: HttpRequest) -> bool:
    """Say whether a proxy asks for a connection that it holds, at the address of the stream."""
    if is_of_predecessor(request):
        return True
    return (
        "Grip-Last" in request.headers
        and not _has_ambiguous_names(request)
        and is_verified(request)
    )


def is_of_predecessor(request: HttpRequest) -> bool:
    """Say whether the connection was held by django-eventstream 5, before it was replaced."""
    return "es-meta" in request.GET


def position_of(request: HttpRequest) -> Position | None:
    """Return where the connection stands for which a proxy asks; None unless all is proven.

    Everything that is told for a connection that a proxy holds is told by this function's word.
    """
    if not is_proxied(request) or _has_ambiguous_names(request):
        return None
    position = parse_position(parse_last(request.headers.get("Grip-Last", "")), channel_prefix())
    return position if position is not None and is_proven(position) else None


def predecessors_position_of(request: HttpRequest) -> Position:
    """Return where a connection of django-eventstream 5 is said to stand.

    Nothing proves it, so whoever says it may be told no more than what it says.
    """
    last = parse_last(request.headers.get("Grip-Last", ""))
    return parse_position_of_predecessor(last, channel_prefix())


def _has_ambiguous_names(request: HttpRequest) -> bool:
    """Say whether a client wrote `Grip_…`, which proxies let pass and some servers rename.

    Under WSGI it cannot be known: the server has renamed it already, or dropped it.
    """
    headers = request.scope["headers"] if hasattr(request, "scope") else ()
    return any(b"_" in name and name.lower()[:4] == b"grip" for name, _ in headers)


def _signed_by(proxy: Proxy, signature: str) -> bool:
    if proxy.verify_key is None:
        return False
    return _expiry(signature, proxy.verify_key, proxy.verify_issuer) > time.time()


# A proxy signs once a second, and may ask for a thousand connections meanwhile.
@lru_cache(maxsize=16)
def _expiry(signature: str, key: str | bytes, issuer: str | None) -> float:
    """Return until when a signature holds; 0 if it is not made with the key."""
    try:
        claims = jwt.decode(
            signature,
            key,
            algorithms=ALGORITHMS,
            issuer=issuer,
            options={"require": ["exp"], "verify_aud": False},
        )
    except (jwt.PyJWTError, ValueError, TypeError):
        return 0
    return float(claims["exp"])
