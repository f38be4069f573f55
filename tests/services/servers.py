"""The tests' Django project in a real server process."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.services import reaper
from tests.services.deadline import HEALTHY
from tests.services.process import ServerProcess
from tests.services.python import ROOT, django_environment
from tests.services.service import Service

HOST = "127.0.0.1"
# Granian serves 1,024 connections unless told, and lets the rest hang.
BACKPRESSURE = "10000"
UWSGI = str(Path(sys.executable).with_name("uwsgi"))
COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "uvicorn": lambda port: ["uvicorn", "tests.asgi:application", "--host", HOST, "--port", port],
    "daphne": lambda port: ["daphne", "-b", HOST, "-p", port, "tests.asgi:application"],
    "hypercorn": lambda port: ["hypercorn", "tests.asgi:application", "--bind", f"{HOST}:{port}"],
    "granian": lambda port: [
        "granian", "tests.asgi:application", "--interface", "asgi", "--host", HOST, "--port", port,
        "--backpressure", BACKPRESSURE,
    ],
    "gunicorn": lambda port: [
        "gunicorn", "tests.wsgi:application", "--bind", f"{HOST}:{port}", "--workers", "1",
        "--threads", "16", "--no-control-socket",
    ],
    "gunicorn-gevent": lambda port: [
        "gunicorn", "tests.wsgi:application", "--bind", f"{HOST}:{port}", "--workers", "1",
        "--worker-class", "gevent", "--no-control-socket",
    ],
    "granian-wsgi": lambda port: [
        "granian", "tests.wsgi:application", "--interface", "wsgi", "--host", HOST, "--port", port,
        "--blocking-threads", "8",
    ],
    "uwsgi": lambda port: [
        "--http-socket", f"{HOST}:{port}", "--module", "tests.wsgi", "--virtualenv", sys.prefix,
        "--master", "--die-on-term", "--enable-threads", "--threads", "8", "--need-app",
    ],
}  # fmt: skip


class AppServer(Service):
    """`kind` is one of `COMMANDS`; gunicorns, uWSGI and one Granian are WSGI. One worker process.

    With `+wrapper` behind it, `EventStreamApplication` holds the streams.

    `database` and `settings` configure it (see `tests/settings.py`), `env` adds variables,
    `options` adds arguments of the server's own. `settings` may be changed for the next `start()`.
    """

    name = "app"

    def __init__(
        self,
        kind: str = "uvicorn",
        *,
        database: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        port: int | None = None,
    ) -> None:
        super().__init__(port)
        self.kind, _, self.lane = kind.partition("+")
        self.database = database
        self.settings = dict(settings or {})
        self.env = env
        self.options = options

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def launch(self) -> ServerProcess:
        # uWSGI alone is no module of Python's.
        start = [UWSGI] if self.kind == "uwsgi" else [sys.executable, "-m"]
        argv = [*start, *COMMANDS[self.kind](str(self.port)), *self.options]
        lane = {"EVENTSTREAM_TEST_LANE": self.lane}
        env = django_environment(self.database, self.settings, {**(self.env or {}), **lane})
        return ServerProcess(argv, log=self.log, env=env, cwd=ROOT)

    def is_ready(self) -> bool:
        try:
            answering = self.stats()["pid"]
        except OSError:
            return False
        return reaper.session_of(answering) == self.pid

    def send(self, *events: tuple[str, str, Any], atomic: bool = False) -> None:
        """Makes the server process send `(channel, type, data)` events, in one request."""
        self.request("/send/", {"events": events, "atomic": atomic})

    def stats(self) -> dict[str, Any]:
        """What the server process holds; see `tests.views.stats`."""
        return json.loads(self.request("/stats/").read())

    def log_in(self, name: str) -> dict[str, str]:
        """Makes and logs in a user; the headers that a client of this user sends."""
        cookies = self.request(f"/login/{name}/").headers.get_all("Set-Cookie")
        return {"Cookie": "; ".join(cookie.partition(";")[0] for cookie in cookies)}

    def request(self, path: str, body: object = None, timeout: float = HEALTHY):
        """GET, or POST of a JSON body; the answer. Raises `HTTPError` on 4xx and 5xx."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        return urllib.request.urlopen(request, timeout=timeout)
