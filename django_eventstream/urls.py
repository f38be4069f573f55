"""`path("events/", include("django_eventstream.urls"))`."""

from __future__ import annotations

from django.urls import path

from django_eventstream.views import events
from django_eventstream.views.recover import recover

# What GRIP proxies ask has the same address for all streams, and a token only where it must.
urlpatterns = [
    path("", events),
    path("_next/", recover, name="eventstream-next"),
    path("_next/<eventstream_token>/", recover, name="eventstream-next"),
]
