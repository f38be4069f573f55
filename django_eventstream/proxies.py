"""The GRIP proxies that the project configured, in the settings of django-grip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from gripcontrol import parse_grip_uri


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy: where to publish, and how to know its requests."""

    control_uri: str
    """Base of the publishing endpoint, without a slash at its end."""

    issuer: str | None = None
    key: str | bytes | None = None
    """Signs what is published, with an issuer; without one it is sent as it is."""

    verify_issuer: str | None = None
    verify_key: str | bytes | None = None
    """Verifies what the proxy signs; None if nothing can be verified."""


@lru_cache(maxsize=1)
def get_proxies() -> tuple[Proxy, ...]:
    """Return the proxies of `GRIP_PROXIES` and `GRIP_URL`; the settings stay as they are."""
    configured = list(getattr(django_settings, "GRIP_PROXIES", None) or [])
    if url := getattr(django_settings, "GRIP_URL", None):
        configured.append(parse_grip_uri(url))
    return tuple(_make_proxy(entry) for entry in configured)


def can_verify() -> bool:
    """Say whether the requests of some proxy can be verified at all."""
    return any(proxy.verify_key for proxy in get_proxies())


def channel_prefix() -> str:
    """Return `GRIP_PREFIX`, which stands before every channel name at the proxies."""
    return getattr(django_settings, "GRIP_PREFIX", None) or ""


def is_proxy_required() -> bool:
    """Say whether `GRIP_PROXY_REQUIRED` refuses clients that do not come through a proxy."""
    return bool(getattr(django_settings, "GRIP_PROXY_REQUIRED", False))


def _make_proxy(entry: Mapping[str, Any]) -> Proxy:
    key = entry.get("key")
    common = getattr(django_settings, "GRIP_VERIFY_KEY", None)
    return Proxy(
        control_uri=entry["control_uri"].rstrip("/"),
        issuer=entry.get("control_iss"),
        key=key,
        verify_issuer=entry.get("verify_iss"),
        verify_key=entry.get("verify_key") or common or key,
    )


@receiver(setting_changed)
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting.startswith("GRIP_"):
        get_proxies.cache_clear()
