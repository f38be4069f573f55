"""An SSE server of a few lines, so that the clients are tested without the package."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ToyServer(ThreadingHTTPServer):
    """Sends each connection the next of `answers`: a status and the body's chunks.

    A stream stays open after its last chunk until the client goes; one that ends with `None` is
    ended by the server. What clients sent as `Last-Event-ID` is in `cursors`.
    """

    daemon_threads = True
    request_queue_size = 2000
    allow_reuse_address = True

    def __init__(self, *answers: tuple[int, list[bytes | None]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = list(answers)
        self.cursors: list[str | None] = []
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/events/?channel=a"

    def next_answer(self, cursor: str | None) -> tuple[int, list[bytes | None]]:
        with self.lock:
            self.cursors.append(cursor)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def handle_error(self, *args: object) -> None:
        """A client that is cut off is no error here."""

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self.thread.join()
        super().__exit__(*exc_info)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ToyServer

    def do_GET(self) -> None:
        status, chunks = self.server.next_answer(self.headers["Last-Event-ID"])
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream" if status == 200 else "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            data = chunk or b""
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if chunks[-1] is not None:
            self.rfile.read(1)

    def log_message(self, *args: object) -> None:
        pass
