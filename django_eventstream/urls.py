"""`path("events/", include("django_eventstream.urls"))`."""

from __future__ import annotations

from django.urls import path

from django_eventstream.views import events

urlpatterns = [path("", events)]
