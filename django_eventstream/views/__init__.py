"""The views. `events` is what `django_eventstream.urls` routes to; `aevents` is for async views."""

from __future__ import annotations

from django_eventstream.views import listeners
from django_eventstream.views.listeners import Listener
from django_eventstream.views.stream import aevents, events

# The generator of django-eventstream 5 has the name of the module that has `events`.
stream = listeners.stream

__all__ = ["Listener", "aevents", "events", "stream"]
