"""As much HTTP/1.1 as a streaming client needs: a GET out; status, headers and body pieces in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import h11

from tests.transcript import Connection, Transcript


class Exchange:
    """One request and its answer, without any I/O: the caller moves the bytes."""

    def __init__(self, url: str, headers: Mapping[str, str], transcript: Transcript) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.headers = {"Host": parts.netloc, **headers}
        self.transcript = transcript
        self.connection: Connection = transcript.connecting()
        self.http = h11.Connection(h11.CLIENT)

    def request(self) -> bytes:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", **self.headers}
        if self.connection.sent_last_event_id:
            headers["Last-Event-ID"] = self.connection.sent_last_event_id
        encoded = [(name, value.encode()) for name, value in headers.items()]
        head = h11.Request(method="GET", target=self.target, headers=encoded)
        return self.http.send(head) + self.http.send(h11.EndOfMessage())

    def receive(self, data: bytes) -> bool:
        """Takes what the socket gave, empty at its end; False when the answer is over."""
        try:
            self.http.receive_data(data)
            return all(self.handle(event) for event in self.events())
        except h11.RemoteProtocolError as error:
            self.transcript.ended(f"protocol error: {error}")
            return False

    def events(self) -> Iterator[object]:
        while (event := self.http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            yield event
            if isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                return

    def handle(self, event: object) -> bool:
        if isinstance(event, h11.Response):
            self.connection.headers = {
                name.decode(): value.decode("latin-1") for name, value in event.headers
            }
            self.connection.status = event.status_code
        elif isinstance(event, h11.Data) and self.connection.is_stream:
            self.transcript.receive(bytes(event.data))
        elif isinstance(event, h11.Data):
            self.connection.body += bytes(event.data)
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
            self.transcript.ended("complete")
            return False
        return True
