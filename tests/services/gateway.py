"""What a proxy answers while there is nothing behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.services.deadline import wait_until

HOST = "127.0.0.1"


@contextmanager
def gateway_without_server(port: int) -> Iterator[list[str]]:
    """Answers 502 on the port, once it is free; yields the paths that it was asked for."""
    asked: list[str] = []

    class BadGateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(502)

        def log_message(self, *arguments: object) -> None:
            pass

    def listening() -> ThreadingHTTPServer | None:
        # A killed process is dead before the last of its threads has let go of the port.
        with suppress(OSError):
            return ThreadingHTTPServer((HOST, port), BadGateway)
        return None

    with wait_until(listening) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()
