"""Streams that are routed by hand, without the package's URLs."""

from __future__ import annotations

from django.urls import path

from django_eventstream.views import events
from django_eventstream.viewsets import EventsViewSet
from tests import views

urlpatterns = [
    path("rooms/<channel>/", events),
    path("viewset/<channel>/", EventsViewSet.as_view()),
    path("<path:channel>/stream/", events),
    path("send/", views.send),
    path("login/<name>/", views.log_in),
    path("stats/", views.stats),
]
