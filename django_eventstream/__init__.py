"""Reliable Server-Sent Events for Django.

Importing this package needs no settings and no app registry: names are found when used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_eventstream.api import (
        achannel_permission_changed as achannel_permission_changed,
    )
    from django_eventstream.api import aget_current_event_id as aget_current_event_id
    from django_eventstream.api import asend_event as asend_event
    from django_eventstream.api import asend_events as asend_events
    from django_eventstream.api import channel_permission_changed as channel_permission_changed
    from django_eventstream.api import get_current_event_id as get_current_event_id
    from django_eventstream.api import send_event as send_event
    from django_eventstream.api import send_events as send_events
    from django_eventstream.eventrequest import EventRequest as EventRequest
    from django_eventstream.eventresponse import EventResponse as EventResponse
    from django_eventstream.events import Event as Event
    from django_eventstream.eventstream import aget_events as aget_events
    from django_eventstream.eventstream import get_events as get_events
    from django_eventstream.exceptions import EventPermissionError as EventPermissionError

__version__ = "0.1.0"

_HOMES = {
    "Event": "django_eventstream.events",
    "EventPermissionError": "django_eventstream.exceptions",
    "EventRequest": "django_eventstream.eventrequest",
    "EventResponse": "django_eventstream.eventresponse",
    "aget_events": "django_eventstream.eventstream",
    "get_events": "django_eventstream.eventstream",
    **dict.fromkeys(
        (
            "achannel_permission_changed",
            "aget_current_event_id",
            "asend_event",
            "asend_events",
            "channel_permission_changed",
            "get_current_event_id",
            "send_event",
            "send_events",
        ),
        "django_eventstream.api",
    ),
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name == "urls":
        return import_module("django_eventstream.urls")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
