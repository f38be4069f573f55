from __future__ import annotations

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

from django_eventstream.asgi import EventStreamApplication

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

LANES = {
    "": lambda django: django,
    "wrapper": EventStreamApplication,
    "around-channels": lambda django: EventStreamApplication(ProtocolTypeRouter({"http": django})),
    "within-channels": lambda django: ProtocolTypeRouter({"http": EventStreamApplication(django)}),
}

application = LANES[os.environ.get("EVENTSTREAM_TEST_LANE", "")](get_asgi_application())
