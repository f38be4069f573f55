"""Streams out of `async def` views: Django's own, and those of two frameworks."""

from __future__ import annotations

from adrf.views import APIView
from django.http import HttpRequest, HttpResponseBase
from django.urls import include, path
from ninja import NinjaAPI

from django_eventstream.renderers import SSEEventRenderer
from django_eventstream.views import aevents

ninja = NinjaAPI()


async def stream(request: HttpRequest, channel: str) -> HttpResponseBase:
    return await aevents(request, channels=[channel])


@ninja.get("/{channel}/")
async def operation(request: HttpRequest, channel: str) -> HttpResponseBase:
    return await aevents(request, channels=[channel])


class Stream(APIView):
    renderer_classes = [SSEEventRenderer]

    async def get(self, request: HttpRequest, channel: str) -> HttpResponseBase:
        return await aevents(request, channels=[channel])


urlpatterns = [
    path("", include("tests.urls")),
    path("routed/<channel>/", aevents, {"format-channels": ["{channel}"]}),
    path("django/<channel>/", stream),
    path("ninja/", ninja.urls),
    path("adrf/<channel>/", Stream.as_view()),
]
