from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

from django_eventstream.asgi import EventStreamApplication

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

application = get_asgi_application()

if os.environ.get("EVENTSTREAM_TEST_LANE") == "wrapper":
    application = EventStreamApplication(application)
