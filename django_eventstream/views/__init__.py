"""The views. `events` is what `django_eventstream.urls` routes to."""

from __future__ import annotations

from django_eventstream.views.stream import events

__all__ = ["events"]
