"""Views that let a test make a server process do something, and tell about itself."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import threading
from contextlib import nullcontext
from pathlib import Path

from django.contrib.auth import get_user_model, login
from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from django_eventstream import send_event
from django_eventstream.hub.current import _hubs
from tests import middleware, statements
from tests.services.open_files import open_files

statements.start_counting()


@csrf_exempt
@require_POST
def send(request: HttpRequest) -> JsonResponse:
    """Sends `{"events": [[channel, type, data], …]}`; `"atomic": true` makes it one transaction."""
    body = json.loads(request.body)
    with transaction.atomic() if body.get("atomic") else nullcontext():
        for channel, event_type, data in body["events"]:
            send_event(channel, event_type, data)
    return JsonResponse({"sent": len(body["events"])})


def log_in(request: HttpRequest, name: str) -> JsonResponse:
    """Logs the client in as this user, who is made if need be."""
    user, _ = get_user_model().objects.get_or_create(username=name)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return JsonResponse({"id": user.pk, "name": name})


@transaction.non_atomic_requests
async def stats(request: HttpRequest) -> JsonResponse:
    """What this process holds just now, this request included. Opens no database connection."""
    return JsonResponse(
        {
            "pid": os.getpid(),
            "streams": sum(hub.statistics().connections for hub in list(_hubs.values())),
            "threads": threading.active_count(),
            "os_threads": len(os.listdir("/proc/self/task")),
            "files": len(open_files()),
            "resident_bytes": resident_pages() * resource.getpagesize(),
            "most_resident_bytes": most_resident_kibibytes() * 1024,
            "couriers": sum("Courier" in repr(task) for task in asyncio.all_tasks()),
            "refused_threads": len(refused),
            "streams_asked_for": middleware.asked["/events/"],
            "connections_opened": statements.connections.total(),
            "most_connections": statements.most_open,
            "log_statements": dict(statements.counts),
            "database_files": open_files().count(str(connection.settings_dict["NAME"])),
        }
    )


refused: list[str] = []
"""Names of the threads that were not started."""


def refuse_threads(request: HttpRequest, count: int) -> JsonResponse:
    """Makes the system have no thread for the hub, so many times."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        is_of_hub = thread.name.startswith("eventstream") and "request" not in thread.name
        if is_of_hub and len(refused) < count:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    threading.Thread.start = refuse
    return JsonResponse({})


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


def most_resident_kibibytes() -> int:
    [line] = [
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    ]
    return int(line.split()[1])
