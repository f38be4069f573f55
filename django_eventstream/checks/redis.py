"""Checks of Redis in the settings. They ask nobody."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from django.core.checks import CheckMessage, register
from django.utils.module_loading import import_string

from django_eventstream.checks.messages import TAG, error, warning, wrong_value
from django_eventstream.conf import PREFIX, REDIS_EXAMPLE, settings
from django_eventstream.exceptions import IncompatibleSettings

CONNECTIONS = ("STORAGE_CONNECTION", "REDIS")

# By name: most projects have no use for the package redis, and should not pay for importing it.
REDIS_SERVER = "django_eventstream.redis_server.RedisServer"
REDIS_STORAGE = "django_eventstream.storage.redis.RedisStorage"


@register(TAG)
def check_redis(**kwargs: Any) -> Iterator[CheckMessage]:
    """E030, E031, E032, W033: a Redis that cannot be used, or that nobody uses."""
    prefix = settings.REDIS_PREFIX
    if not isinstance(prefix, str) or not prefix:
        rule = "must be a string that is not empty"
        yield wrong_value("eventstream.E030", "REDIS_PREFIX", rule, prefix)
    is_storage = _is_log_in_redis()
    given = [name for name in CONNECTIONS if getattr(settings, name) is not None]
    if is_storage and not given:
        yield error(
            "eventstream.E031",
            f"The event log is to be in Redis, and {PREFIX}STORAGE_CONNECTION is not set.",
            f"Say where Redis is: {PREFIX}STORAGE_CONNECTION = {REDIS_EXAMPLE}.",
        )
    if not is_storage and "STORAGE_CONNECTION" in given:
        yield warning(
            "eventstream.W033",
            f"{PREFIX}STORAGE_CONNECTION is not used: the event log is not in Redis.",
            f"Remove it, or set {PREFIX}STORAGE_CLASS to django_eventstream.storage.RedisStorage.",
        )
    if (given or is_storage) and find_spec("redis") is None:
        yield error(
            "eventstream.E032",
            "The settings name a Redis, and the package redis is not installed.",
            f"Install redis, or remove {PREFIX}REDIS and {PREFIX}STORAGE_CONNECTION.",
        )
        return
    for name in given:
        yield from _check_connection(name)


def _check_connection(name: str) -> Iterator[CheckMessage]:
    try:
        import_string(REDIS_SERVER).from_settings(name).make_client().close()
    except IncompatibleSettings as problem:
        hint = f"Give it a URL, or options of redis.Redis(), such as {REDIS_EXAMPLE}."
        yield error("eventstream.E030", f"{problem}.", hint)


def _is_log_in_redis() -> bool:
    path = settings.STORAGE_CLASS
    try:
        storage = import_string(path) if isinstance(path, str) else None
    except ImportError:
        return False
    bases = inspect.getmro(storage) if inspect.isclass(storage) else ()
    return REDIS_STORAGE in {f"{base.__module__}.{base.__qualname__}" for base in bases}
