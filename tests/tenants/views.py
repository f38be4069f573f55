"""Views that send as a tenant."""

from __future__ import annotations

import json

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from django_eventstream import send_event
from tests.tenants.channels import tenant_channel


@csrf_exempt
def send(request: HttpRequest) -> JsonResponse:
    """Sends `[channel, data]` on the tenant's own channel."""
    channel, data = json.loads(request.body)
    return JsonResponse({"id": send_event(tenant_channel(channel), "message", data).id})
