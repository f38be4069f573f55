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
from django_eventstream.proxies import Proxy, channel_prefix, get_proxies

ALGORITHMS = ["HS256", "RS256", "ES256"]


def is_proxied(request: HttpRequest) -> bool:
    """Say whether a proxy will act on GRIP headers in the answer.

    Where no proxy has a key this is what the request claims: whoever lies gets GRIP headers,
    which tell nothing, and no stream.
    """
    proxies = get_proxies()
    if any(proxy.verify_key for proxy in proxies):
        return is_verified(request)
    return bool(proxies) and ("Grip-Sig" in request.headers or "Grip-Feature" in request.headers)


def is_verified(request: HttpRequest) -> bool:
    """Say whether a configured proxy signed the request: all that it says can be trusted."""
    signature = request.headers.get("Grip-Sig", "")
    return bool(signature) and any(_signed_by(proxy, signature) for proxy in get_proxies())


def can_verify() -> bool:
    """Say whether the requests of some proxy can be verified at all."""
    return any(proxy.verify_key for proxy in get_proxies())


def is_recovery(request: HttpRequest) -> bool:
    """Say whether a proxy asks for a connection that it holds, at the address of the stream."""
    if is_of_predecessor(request):
        return True
    return "Grip-Last" in request.headers and is_verified(request)


def is_of_predecessor(request: HttpRequest) -> bool:
    """Say whether the connection was held by django-eventstream 5, before it was replaced."""
    return "es-meta" in request.GET


def position_of(request: HttpRequest) -> Position | None:
    """Return where the connection stands for which a proxy asks; None if nothing tells."""
    return parse_position(parse_last(request.headers.get("Grip-Last", "")), channel_prefix())


def predecessors_position_of(request: HttpRequest) -> Position:
    """Return where a connection of django-eventstream 5 stands for which a proxy asks."""
    last = parse_last(request.headers.get("Grip-Last", ""))
    return parse_position_of_predecessor(last, channel_prefix())


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
