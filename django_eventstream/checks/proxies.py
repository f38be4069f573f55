"""Checks of the GRIP proxies. They ask nobody: whether a proxy answers is not for a check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.core.checks import CheckMessage, register

from django_eventstream.checks.messages import TAG, error, warning
from django_eventstream.conf import other_setting
from django_eventstream.proxies import can_verify, get_proxies


@register(TAG)
def check_proxies(**kwargs: Any) -> Iterator[CheckMessage]:
    """E020, W021: proxies that cannot be published to, or that cannot be told from strangers."""
    try:
        proxies = get_proxies()
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        text = f"GRIP_URL or GRIP_PROXIES cannot be read: {problem!r}."
        hint = (
            'Write GRIP_URL = "http://localhost:5561?key=…", or '
            'GRIP_PROXIES = [{"control_uri": "http://localhost:5561", "key": "…"}].'
        )
        yield error("eventstream.E020", text, hint)
        return
    for proxy in proxies:
        if not _is_address(proxy.control_uri):
            text = f"{proxy.control_uri!r} is no address that events can be published to."
            hint = "In GRIP_URL or `control_uri`, write http://host:port, as in pushpin.conf."
            yield error("eventstream.E020", text, hint)
        elif proxy.verify_key is None:
            yield warning(
                "eventstream.W021",
                f"The proxy {proxy.control_uri} has no key, so its requests cannot be verified."
                f"{_consequence()}",
                _hint_for_key(),
            )


def _consequence() -> str:
    # With a key elsewhere, E102 says what happens.
    return (
        ""
        if can_verify()
        else " Such a proxy is told nothing private: where a logged-in user's stream has missed "
        "something it ends, and the client comes back for it."
    )


def _hint_for_key() -> str:
    where = "?key=… in GRIP_URL" if other_setting("GRIP_URL") else "'key' in GRIP_PROXIES"
    return f"Choose a long random key, and set it as sig_key in pushpin.conf and as {where}."


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
