"""A way to a server that can freeze: it takes what it is sent, passes nothing on, and says nothing.

So it looks from behind a firewall that drops packets, a proxy that stalls, or a server that is
paused.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

HOST = "127.0.0.1"


class Forwarder:
    """Forwards a port. What is held back while it is frozen is passed on when it thaws."""

    def __init__(self, port: int) -> None:
        self._target = (HOST, port)
        self._listener = socket.create_server((HOST, 0))
        self._lock = threading.Lock()
        self._flows: list[threading.Event] = []
        self._is_open = True
        self._sockets: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.opened = 0
        """How many connections there were."""

    def freeze(self, *, new_ones: bool) -> None:
        """Freezes all connections there are, and perhaps those that come as well."""
        with self._lock:
            self._is_open = not new_ones
            for flow in self._flows:
                flow.clear()

    def thaw(self) -> None:
        with self._lock:
            self._is_open = True
            for flow in self._flows:
                flow.set()

    def __enter__(self) -> Forwarder:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.close()
        self.thaw()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connect(client, socket.create_connection(self._target))

    def _connect(self, client: socket.socket, server: socket.socket) -> None:
        flow = threading.Event()
        with self._lock:
            self.opened += 1
            self._flows.append(flow)
            self._sockets += [client, server]
            if self._is_open:
                flow.set()
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=_forward, args=(source, sink, flow), daemon=True).start()


def _forward(source: socket.socket, sink: socket.socket, flow: threading.Event) -> None:
    with suppress(OSError), source, sink:
        while chunk := source.recv(65_536):
            flow.wait()
            sink.sendall(chunk)
        flow.wait()
        for end in (source, sink):
            end.shutdown(socket.SHUT_RDWR)
