"""Pushpin in front of an application, as Debian packages it: the runner and its four children."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.services.deadline import HEALTHY, wait_until
from tests.services.missing import program
from tests.services.ports import free_port
from tests.services.process import ServerProcess
from tests.services.service import Service

# The key that Pushpin signs with and Django verifies; HS256 wants 32 bytes.
GRIP_KEY = "a-test-key-of-at-least-32-bytes-in-length"
# Debian's default configuration leaves zurl to another system service, hence the three specs for
# one of our own. `{{…}}` is expanded by Pushpin itself.
CONFIGURATION = """\
[global]
include={{libdir}}/internal.conf
rundir={directory}
ipc_prefix=t-

[runner]
services=condure,zurl,pushpin-proxy,pushpin-handler
http_port=127.0.0.1:{port}
logdir={directory}
log_level=2
client_maxconn=5000

[proxy]
routesfile=routes
sig_iss=pushpin
sig_key={key}
zurl_out_specs=ipc://{{rundir}}/{{ipc_prefix}}zurl-in
zurl_out_stream_specs=ipc://{{rundir}}/{{ipc_prefix}}zurl-in-stream
zurl_in_specs=ipc://{{rundir}}/{{ipc_prefix}}zurl-out

[handler]
push_in_http_addr=127.0.0.1
push_in_http_port={publish_port}
id_cache_ttl=60
message_rate=0
message_hwm=0
{handler}"""


class Pushpin(Service):
    """One Pushpin. `routes` are lines of its routes file, most often `route_to(port)`.

    `key=""` makes a proxy that does not sign. `handler` adds lines to that section, as in
    `{"message_wait": 500}`. Channel and id together must be new for 60 s: it drops repeated ones.
    """

    name = "pp"

    def __init__(
        self,
        routes: Sequence[str],
        *,
        key: str = GRIP_KEY,
        handler: dict[str, object] | None = None,
        port: int | None = None,
    ) -> None:
        self.program = program("pushpin", "pushpin")
        super().__init__(port)
        self.publish_port = free_port()
        self.key = key
        self.set_routes(routes)
        self.configuration = self.directory / "pushpin.conf"
        self.configuration.write_text(
            CONFIGURATION.format(
                directory=self.directory,
                port=self.port,
                publish_port=self.publish_port,
                key=key,
                handler="".join(f"{name}={value}\n" for name, value in (handler or {}).items()),
            )
        )

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def control_url(self) -> str:
        """Where the application publishes."""
        return f"http://127.0.0.1:{self.publish_port}"

    @property
    def grip_url(self) -> str:
        """The setting `GRIP_URL` of an application behind it."""
        return f"{self.control_url}?iss=pushpin&key={self.key}" if self.key else self.control_url

    def set_routes(self, routes: Sequence[str]) -> None:
        """Replaces the routes; a running Pushpin takes them up within about a second."""
        (self.directory / "routes").write_text("".join(f"{route}\n" for route in routes))
        if self.is_running:
            os.kill(self.pid, signal.SIGHUP)

    def launch(self) -> ServerProcess:
        # A killed runner leaves these behind; sockets of the dead would look alive.
        for stale in [*self.directory.glob("*.pid"), *self.directory.glob("t-*")]:
            stale.unlink()
        return ServerProcess([self.program, f"--config={self.configuration}"], log=self.log)

    def is_ready(self) -> bool:
        """Its ports open before its parts have met: it is ready with an HTTP answer, even a 502."""
        return answers(f"{self.control_url}/") and answers(f"{self.url}/is-anybody-there/")

    def kill_part(self, name: str) -> None:
        """SIGKILL to one child, such as `pushpin-handler`; the runner then ends the others."""
        [pid_file] = self.directory.glob(f"*{name}.pid")
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        wait_until(lambda: not self.is_running, message="the runner goes on without its child")

    def publish(self, *items: dict[str, object]) -> None:
        """Publishes items as they are, past the package."""
        request = urllib.request.Request(
            f"{self.control_url}/publish/",
            data=json.dumps({"items": items}).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=HEALTHY).read()

    def log_text(self) -> str:
        logs = sorted(Path(self.directory).glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in logs)


def route_to(port: int, *, condition: str = "*") -> str:
    """Sends what meets the condition (`*`, `*,path_beg=/a/`) to a local application."""
    return f"{condition} 127.0.0.1:{port},over_http"


def answers(url: str) -> bool:
    with suppress(OSError):
        try:
            urllib.request.urlopen(url, timeout=0.5).read()
        except urllib.error.HTTPError as error:
            error.close()
        return True
    return False
