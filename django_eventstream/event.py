"""The event's module of django-eventstream 5."""

from __future__ import annotations

from typing import Any

from django_eventstream import events
from django_eventstream.deprecation import warn_deprecated


def __getattr__(name: str) -> Any:
    if name != "Event":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_deprecated(f"{__name__}.Event", "import Event from django_eventstream")
    return events.Event
