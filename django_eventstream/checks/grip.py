"""Checks of the GRIP proxies in the settings. They ask nobody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from django.core.checks import CheckMessage, register
from django.urls import NoReverseMatch, reverse

from django_eventstream.checks.messages import TAG, error, warning
from django_eventstream.conf import other_setting, settings
from django_eventstream.proxies import Proxy, get_proxies, is_proxy_required
from django_eventstream.web.grip import LINK_NAME

HOLD_LIMIT = 19
"""Channels of one connection at a proxy (20), without the one that is the user's own."""

SHORTEST_KEY = 32
"""Bytes of an HS256 key that cannot be guessed (RFC 7518 §3.2)."""

_PREFIX = re.compile(r"[A-Za-z0-9_.~:/-]+", re.ASCII)
"""What neither ends a name in a header, nor a name within `%(…)s`."""


@register(TAG)
def check_keys(**kwargs: Any) -> Iterator[CheckMessage]:
    """E101–W104, E107: proxies whose requests are not recognised, or too easily."""
    proxies = _readable_proxies()
    if is_proxy_required() and not proxies:
        yield error(
            "eventstream.E101",
            "GRIP_PROXY_REQUIRED is set, but there is no GRIP proxy: nobody gets a stream.",
            "Set GRIP_URL, or leave GRIP_PROXY_REQUIRED out.",
        )
    prefix = other_setting("GRIP_PREFIX")
    if prefix and not (isinstance(prefix, str) and _PREFIX.fullmatch(prefix)):
        yield error(
            "eventstream.E107",
            f"GRIP_PREFIX = {prefix!r} has a character that no header to a GRIP proxy can have.",
            "Use letters, digits and -._~:/ in GRIP_PREFIX, in every project behind the proxy.",
        )
    if 0 < sum(proxy.verify_key is not None for proxy in proxies) < len(proxies):
        yield error(
            "eventstream.E102",
            "Some GRIP proxies have a key and others have none: those without are not recognised.",
            "Give each its key, or set GRIP_VERIFY_KEY.",
        )
    for proxy in proxies:
        if proxy.verify_key is not None:
            yield from _check_key(proxy.verify_key)


@register(TAG)
def check_recovery(**kwargs: Any) -> Iterator[CheckMessage]:
    """W105, W106: streams that recover slowly, or that have more channels than a proxy holds."""
    if not _readable_proxies():
        return
    if not _has_recovery_address():
        yield warning(
            "eventstream.W105",
            "The recovery address of django_eventstream.urls needs arguments, or is not there.",
            "Add path('events/', include('django_eventstream.urls')) without arguments, so that a "
            "GRIP proxy asks for all streams at one address; it lets out only ten different ones "
            "a second.",
        )
    limit = settings.CHANNEL_LIMIT
    if isinstance(limit, int) and limit > HOLD_LIMIT:
        yield warning(
            "eventstream.W106",
            f"EVENTSTREAM_CHANNEL_LIMIT is {limit}, but a GRIP proxy holds 20 channels of a "
            "connection, one of which is the user's own, and cuts off the rest.",
            f"Lower it to {HOLD_LIMIT}, or raise connection_subscription_max in the proxy.",
        )


def _check_key(key: str | bytes) -> Iterator[CheckMessage]:
    encoded = key if isinstance(key, bytes) else key.encode()
    if b"-----BEGIN" in encoded:
        if find_spec("cryptography") is None:
            yield error(
                "eventstream.E103",
                "A GRIP proxy signs with a public key, which needs the package 'cryptography'.",
                "Install it; until then no request is recognised as the proxy's.",
            )
    elif len(encoded) < SHORTEST_KEY:
        yield warning(
            "eventstream.W104",
            f"The key of a GRIP proxy has {len(encoded)} bytes, which can be guessed.",
            f"Use at least {SHORTEST_KEY} random bytes, in sig_key of the proxy as well: who has "
            "the key can read every channel.",
        )


def _readable_proxies() -> tuple[Proxy, ...]:
    try:
        return get_proxies()
    except (KeyError, TypeError, AttributeError, ValueError):
        return ()  # E020 tells of it


def _has_recovery_address() -> bool:
    if not other_setting("ROOT_URLCONF"):
        return True
    try:
        reverse(LINK_NAME)
    except NoReverseMatch:
        return False
    return True
