"""Whether a request comes through a GRIP proxy, and what the proxy says about it."""

from __future__ import annotations

import logging
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

logger = logging.getLogger(__name__)

ALGORITHMS = ["HS256", "RS256", "ES256"]

REPORT_SECONDS = 60
"""How often the log gets the same reason: any client can bring a request that is not signed."""

UNCONFIGURED = "no GRIP proxy is configured. Set GRIP_URL or GRIP_PROXIES"
BYPASSED = (
    "it came past the GRIP proxy. Let clients connect to the proxy alone; if this one did, its "
    "requests reach another address than this server's, or lose their headers on the way"
)
UNSIGNED = (
    "its GRIP proxy does not sign what it passes on. Set sig_key in pushpin.conf to the key that "
    "GRIP_URL or GRIP_PROXIES has"
)
WRONG_KEY = (
    "its Grip-Sig is signed with another key than those in GRIP_URL, GRIP_PROXIES and "
    "GRIP_VERIFY_KEY. Set sig_key in pushpin.conf to the same key"
)
EXPIRED = (
    "its Grip-Sig has expired, or never does. Set the clocks of the GRIP proxy and of this server"
)
WRONG_ISSUER = (
    "its Grip-Sig names another issuer than verify_iss in GRIP_PROXIES, or verify-iss in GRIP_URL. "
    "Set it to the issuer of the GRIP proxy (sig_iss in pushpin.conf), or leave it out"
)


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


def report_unverified(request: HttpRequest) -> str:
    """Return why a request is not taken for one of a configured proxy, and log it now and then."""
    reason = _reason(request)
    _log(reason, int(time.monotonic() // REPORT_SECONDS))
    return reason


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


def _reason(request: HttpRequest) -> str:
    if not get_proxies():
        return UNCONFIGURED
    signature = request.headers.get("Grip-Sig", "")
    if not signature:
        return UNSIGNED if "Grip-Feature" in request.headers else BYPASSED
    problems = [
        _verify(signature, proxy.verify_key, proxy.verify_issuer)[1]
        for proxy in get_proxies()
        if proxy.verify_key is not None
    ]
    # Of another proxy it is the key that is wrong.
    return next((problem for problem in problems if problem != WRONG_KEY), WRONG_KEY)


@lru_cache(maxsize=16)
def _log(reason: str, period: int) -> None:
    logger.warning("A request is not taken for one of the GRIP proxy: %s", reason)


def _signed_by(proxy: Proxy, signature: str) -> bool:
    if proxy.verify_key is None:
        return False
    return _verify(signature, proxy.verify_key, proxy.verify_issuer)[0] > time.time()


# A proxy signs once a second, and may ask for a thousand connections meanwhile.
@lru_cache(maxsize=16)
def _verify(signature: str, key: str | bytes, issuer: str | None) -> tuple[float, str]:
    """Return until when a signature holds, and what is wrong with it from then on."""
    try:
        claims = jwt.decode(
            signature,
            key,
            algorithms=ALGORITHMS,
            issuer=issuer,
            options={"require": ["exp"], "verify_aud": False},
        )
    except jwt.InvalidIssuerError:
        return 0, WRONG_ISSUER
    except jwt.MissingRequiredClaimError as error:
        return 0, WRONG_ISSUER if error.claim == "iss" else EXPIRED
    except jwt.ExpiredSignatureError:
        return 0, EXPIRED
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return 0, WRONG_KEY
    return float(claims["exp"]), EXPIRED
