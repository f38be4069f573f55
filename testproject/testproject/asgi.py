"""What an ASGI server runs: `uvicorn --app-dir testproject testproject.asgi:application`."""

import os

from django.core.asgi import get_asgi_application

from django_eventstream.asgi import EventStreamApplication

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")

application = EventStreamApplication(get_asgi_application())
