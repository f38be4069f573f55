from __future__ import annotations

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

from django_eventstream.asgi import EventStreamApplication

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")


def mounted(django):
    """The wrapper under FastAPI, with a middleware of the kind that its guide shows."""
    from fastapi import FastAPI  # slow to import, and only this lane needs it

    api = FastAPI()

    @api.middleware("http")
    async def passing(request, call_next):
        return await call_next(request)

    api.mount("/", EventStreamApplication(django))
    return api


LANES = {
    "": lambda django: django,
    "wrapper": EventStreamApplication,
    "around-channels": lambda django: EventStreamApplication(ProtocolTypeRouter({"http": django})),
    "within-fastapi": mounted,
    "within-channels": lambda django: ProtocolTypeRouter({"http": EventStreamApplication(django)}),
}

application = LANES[os.environ.get("EVENTSTREAM_TEST_LANE", "")](get_asgi_application())
