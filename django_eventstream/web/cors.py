"""Streams for pages of other sites (WHATWG Fetch, CORS): a few headers.

A project that needs more than this uses django-cors-headers, and leaves these settings alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_vary_headers

from django_eventstream.conf import settings

# Every cursor has a colon, which Fetch calls unsafe: a reconnect across origins asks first.
ALWAYS_ALLOWED = ("Cache-Control", "Last-Event-ID")


def allowed_origins() -> list[str]:
    """Return the configured origins; raises TypeError for anything but a string or a list."""
    configured = settings.ALLOW_ORIGIN or settings.ALLOW_ORIGINS
    return _as_list("EVENTSTREAM_ALLOW_ORIGIN(S)", configured)


def allowed_headers() -> list[str]:
    """Return the request headers that pages of other sites may send."""
    configured = settings.ALLOW_HEADERS
    if isinstance(configured, str):
        configured = [name.strip() for name in configured.split(",") if name.strip()]
    given = _as_list("EVENTSTREAM_ALLOW_HEADERS", configured)
    return [*ALWAYS_ALLOWED, *(name for name in given if name not in ALWAYS_ALLOWED)]


def allowed_origin(origin: str, configured: Sequence[str]) -> str | None:
    """Return what Access-Control-Allow-Origin says to a page of `origin`; None for nothing."""
    if origin and origin in configured:
        return origin
    if "*" in configured:
        # A browser refuses the star together with cookies.
        return (origin or None) if settings.ALLOW_CREDENTIALS else "*"
    return configured[0] if len(configured) == 1 else None


def is_preflight(request: HttpRequest) -> bool:
    """Say whether a browser asks what a page of another site may ask; it brings no credentials."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def add_cors_headers(request: HttpRequest, response: HttpResponseBase) -> None:
    """Let pages of the configured origins read the answer."""
    configured = allowed_origins()
    if not configured:
        return
    patch_vary_headers(response, ["Origin"])
    origin = allowed_origin(request.headers.get("Origin", ""), configured)
    if origin is None:
        return
    response["Access-Control-Allow-Origin"] = origin
    response["Access-Control-Allow-Headers"] = ", ".join(allowed_headers())
    if settings.ALLOW_CREDENTIALS:
        response["Access-Control-Allow-Credentials"] = "true"


def _as_list(name: str, value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    raise TypeError(f"{name} must be a string or a list of strings, not {type(value).__name__}")
