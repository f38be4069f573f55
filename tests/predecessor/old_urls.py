from __future__ import annotations

import json
import os

from django.http import JsonResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

import django_eventstream


@csrf_exempt
def send(request):
    """Sends `[[channel, type, data], …]`, in the one process that has the streams."""
    for channel, event_type, data in json.loads(request.body):
        encoded = not isinstance(data, str)
        django_eventstream.send_event(channel, event_type, data, json_encode=encoded)
    return JsonResponse({})


def stats(request):
    return JsonResponse({"pid": os.getpid()})


urlpatterns = [
    path("events/", include(django_eventstream.urls)),
    path("send/", send),
    path("stats/", stats),
]
