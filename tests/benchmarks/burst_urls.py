"""The tests' URLs, and one that makes the server process send many events at a given rate."""

from __future__ import annotations

import time

from django.http import HttpRequest, JsonResponse
from django.urls import include, path

from django_eventstream import send_event

PADDING = "x" * 130


def burst(
    request: HttpRequest, channel: str, first: int, count: int, per_minute: int
) -> JsonResponse:
    """Sends numbers from `first`, so many a minute; 0 is as fast as it goes."""
    begin = time.monotonic()
    for n in range(count):
        if per_minute:
            time.sleep(max(0, begin + n * 60 / per_minute - time.monotonic()))
        data = {"text": PADDING, "n": first + n, "at": time.monotonic()}
        send_event(channel, "message", data)
    return JsonResponse({"seconds": time.monotonic() - begin})


urlpatterns = [
    path("burst/<channel>/<int:first>/<int:count>/<int:per_minute>/", burst),
    path("", include("tests.urls")),
]
