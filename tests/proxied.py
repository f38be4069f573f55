"""What tests of streams behind a proxy put into the application, and in front of the proxy."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from django_eventstream.channelmanager import DefaultChannelManager
from tests.services.deadline import HEALTHY

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

RECOVERY = "RECOVERY"


class MembersOnly(DefaultChannelManager):
    """`own-<name>` is that user's, `staff-…` is for staff, `loose-…` is not stored."""

    def can_read_channel(self, user, channel: str) -> bool:
        if channel.startswith("own-"):
            return user is not None and channel.split("-")[1] == user.username
        return not channel.startswith("staff-") or (user is not None and user.is_staff)

    def is_channel_reliable(self, channel: str) -> bool:
        return not channel.startswith("loose-")


class TellRecoveries:
    """Middleware: writes each request that names connections into the server's log, once it has
    been answered: what is sent from then on is no part of the answer."""

    def __init__(self, get_response) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if "Grip-Last" in request.headers or "/_next/" in request.path:
            # By one write: threads of a worker would mix the parts of their lines.
            sys.stderr.write(f"{RECOVERY} {request.path} {request.headers.get('Grip-Last')}\n")
        return response


class SlowRecoveries(TellRecoveries):
    """Middleware: recovery requests take a second."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "Grip-Last" in request.headers:
            time.sleep(1)
        return super().__call__(request)


class Middleman:
    """Takes publishes in the proxy's place and passes them on, or says so and loses them."""

    def __init__(self, control_url: str) -> None:
        self.is_losing = False
        self.lost = 0
        self.items: list[dict[str, Any]] = []
        """All that was to be published, lost or not."""
        middleman = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                middleman.items += json.loads(body)["items"]
                if middleman.is_losing:
                    middleman.lost += 1
                else:
                    request = urllib.request.Request(control_url + self.path, body)
                    urllib.request.urlopen(request, timeout=HEALTHY).read()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
