"""Streams below a path with an argument, and nowhere else."""

from __future__ import annotations

from django.urls import include, path

from tests import views

urlpatterns = [
    path(
        "rooms/<room>/",
        include("django_eventstream.urls"),
        {"format-channels": ["{room}"]},
    ),
    path("send/", views.send),
    path("login/<name>/", views.log_in),
    path("stats/", views.stats),
]
