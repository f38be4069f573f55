"""Where events are kept. Names resolve lazily, so that no backend is imported for another."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Storage": "django_eventstream.storage.base",
    "DjangoModelStorage": "django_eventstream.storage.orm",
    "RedisStorage": "django_eventstream.storage.redis",
    "MemoryStorage": "django_eventstream.storage.memory",
    "IncompatibleSettings": "django_eventstream.exceptions",
    "RedisPackageIsNotAvailable": "django_eventstream.exceptions",
    # Of django-eventstream 5, whose classes go on working.
    "EventDoesNotExist": "django_eventstream.storage.legacy",
    "StorageBase": "django_eventstream.storage.legacy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
