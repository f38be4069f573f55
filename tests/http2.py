"""Clients that share one HTTP/2 connection, in a thread: each stream is a `Transcript`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError

from tests.services.certificate import trusting
from tests.services.deadline import HEALTHY, wait_until
from tests.transcript import Connection, Transcript, condition

READ_SIZE = 65_536


class StreamsOfOneConnection:
    """Opens each of `paths` at `url`, all on one connection, and again when that is cut.

    `https` asks for HTTP/2 by ALPN and trusts whoever answers; `http` takes it for granted.
    """

    def __init__(
        self,
        url: str,
        paths: Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
        retry: float = 0.05,
    ) -> None:
        self.parts = urlsplit(url)
        self.paths = paths
        self.headers = {name.lower(): value for name, value in (headers or {}).items()}
        self.retry = retry
        self.transcripts = [Transcript() for _ in paths]
        self._exchanges: dict[int, tuple[Transcript, Connection]] = {}
        self._unread: dict[Transcript, int] = {}
        """Bytes that were sent to those who are paused."""
        self._http = H2Connection()
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"HTTP/2 {url}", daemon=True)

    def wait_for(
        self, wanted: int | Callable[[Transcript], object], timeout: float = HEALTHY
    ) -> None:
        """Waits until every stream has that many events, or `wanted(transcript)` is true of it."""
        is_so = condition(wanted)

        def report() -> str:
            waiting = [each for each in self.transcripts if not is_so(each)]
            return f"{len(waiting)} streams wait, the first: {waiting[0].connections[-1:]}"

        wait_until(lambda: all(map(is_so, self.transcripts)), timeout, report)

    def wait_open(self) -> None:
        self.wait_for(lambda transcript: transcript.is_open)

    def cut(self) -> None:
        """Cuts the connection with all its streams."""
        with self._lock, suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)

    def cancel(self, transcript: Transcript) -> None:
        """Leaves one stream, as a closed tab does; the others go on."""
        with self._lock:
            self._http.reset_stream(self._id_of(transcript))
            self._flush()
        transcript.ended("cancelled")

    def pause(self, transcript: Transcript) -> None:
        """Lets one stream send no more than its window."""
        self._unread[transcript] = 0

    def resume(self, transcript: Transcript) -> None:
        with self._lock:
            if unread := self._unread.pop(transcript):
                self._http.increment_flow_control_window(unread, self._id_of(transcript))
            self._flush()

    def _id_of(self, transcript: Transcript) -> int:
        return max(number for number, (each, _) in self._exchanges.items() if each is transcript)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._connect_once()
            except (OSError, ProtocolError) as error:
                # To h2 a GOAWAY is the end, and what still comes after it an error.
                self._end_all(str(error))
            self._end_all("cut")
            self._closed.wait(self.retry)

    def _connect_once(self) -> None:
        with self._open() as connected:
            with self._lock:
                self._begin(connected)
            while self._exchanges and (data := connected.recv(READ_SIZE)):
                with self._lock:
                    for event in self._http.receive_data(data):
                        self._handle(event)
                    self._flush()

    def _open(self) -> socket.socket:
        address = (self.parts.hostname or "127.0.0.1", self.parts.port or 443)
        connected = socket.create_connection(address, HEALTHY)
        connected.settimeout(None)
        if self.parts.scheme == "http":
            return connected
        encrypted = trusting("h2").wrap_socket(connected)
        assert encrypted.selected_alpn_protocol() == "h2", "it speaks no HTTP/2"
        return encrypted

    def _begin(self, connected: socket.socket) -> None:
        self._socket = connected
        self._exchanges.clear()
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._http.initiate_connection()
        for path, transcript in zip(self.paths, self.transcripts, strict=True):
            self._ask(path, transcript)
        self._flush()

    def _ask(self, path: str, transcript: Transcript) -> None:
        connection = transcript.connecting()
        headers = {
            ":method": "GET",
            ":scheme": self.parts.scheme,
            ":authority": self.parts.netloc,
            ":path": path,
            "accept": "text/event-stream",
            **self.headers,
        }
        if connection.sent_last_event_id:
            headers["last-event-id"] = connection.sent_last_event_id
        number = self._http.get_next_available_stream_id()
        self._exchanges[number] = (transcript, connection)
        self._http.send_headers(number, list(headers.items()), end_stream=True)

    def _handle(self, event: Event) -> None:
        number = getattr(event, "stream_id", None)
        if isinstance(event, ConnectionTerminated) or number not in self._exchanges:
            return
        transcript, connection = self._exchanges[number]
        if isinstance(event, ResponseReceived):
            connection.headers = dict(event.headers)
            connection.status = int(connection.headers[":status"])
        elif isinstance(event, DataReceived):
            self._take(number, transcript, event.flow_controlled_length)
            transcript.receive(event.data)
        elif isinstance(event, StreamEnded | StreamReset):
            transcript.ended("complete" if isinstance(event, StreamEnded) else "reset")
            del self._exchanges[number]

    def _take(self, number: int, transcript: Transcript, size: int) -> None:
        if size:
            self._http.increment_flow_control_window(size)
        if transcript in self._unread:
            self._unread[transcript] += size
        elif size:
            self._http.increment_flow_control_window(size, number)

    def _flush(self) -> None:
        assert self._socket is not None
        self._socket.sendall(self._http.data_to_send())

    def _end_all(self, how: str) -> None:
        for transcript in self.transcripts:
            if transcript.connections:
                transcript.ended(how)

    def __enter__(self) -> StreamsOfOneConnection:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed.set()
        self.cut()
        self._thread.join(HEALTHY)
