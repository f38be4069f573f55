"""A way to a server on which answers get lost."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class CutAnswers:
    """Forwards a port; after `next_answer()` it cuts the connection that brings one."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_next = threading.Event()
        self.port = self._listener.getsockname()[1]
        self.count = 0
        """How many answers were cut off."""

    def next_answer(self) -> None:
        self._is_next.set()

    def __enter__(self) -> CutAnswers:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for source, sink, is_answer in ((client, server, False), (server, client, True)):
                    arguments = (source, sink, is_answer)
                    threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with suppress(OSError), source, sink:
            while chunk := source.recv(65_536):
                if is_answer and self._is_next.is_set():
                    self._is_next.clear()
                    self.count += 1
                    break
                sink.sendall(chunk)
            for end in (source, sink):
                end.shutdown(socket.SHUT_RDWR)
