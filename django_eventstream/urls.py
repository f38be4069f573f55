"""`path("events/", include("django_eventstream.urls"))`."""

from __future__ import annotations

from django.urls import path

# Says so where the app is not installed: no check of ours would.
from django_eventstream import models  # noqa: F401
from django_eventstream.views import events
from django_eventstream.views.recover import recover

# GRIP proxies ask at the same address for all streams, and by a token for the next page only.
urlpatterns = [
    path("", events),
    path("_next/", recover, name="eventstream-next"),
    path("_next/<eventstream_token>/", recover, name="eventstream-next"),
]
