"""A client like `EventSource`, in a thread, that a test can cut off, pause and look into."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from tests.http_stream import Exchange
from tests.services.certificate import trusting
from tests.services.deadline import HEALTHY, wait_until
from tests.sse_parser import EventStreamParser, Message
from tests.transcript import (
    Arrival,
    Connection,
    Transcript,
    assert_sequence,
    condition,
    numbered,
    positions,
)

__all__ = [
    "Arrival",
    "Connection",
    "EventStreamParser",
    "Message",
    "StreamClient",
    "Transcript",
    "assert_sequence",
    "numbered",
    "positions",
]
READ_SIZE = 65_536


class StreamClient(Transcript):
    """Opens `url` and records what comes; connects again, with its cursor, when a stream ends.

    `retry` is the wait before that in seconds; `None` obeys the server's `retry:`. An answer that
    is no stream ends a browser's `EventSource` for good; with `persistent`, as here by default, it
    is recorded and tried again. `reconnect=False` makes one connection only. A small
    `receive_buffer` makes a client that does not read felt by the server soon. A connection with
    silence of `patience` seconds before its first frame is given up, and made again.

    As a context manager it is closed at the end; `start()` is called by entering.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        last_event_id: str = "",
        reconnect: bool = True,
        retry: float | None = 0.05,
        persistent: bool = True,
        receive_buffer: int | None = None,
        patience: float | None = None,
    ) -> None:
        super().__init__(last_event_id)
        self.url = url
        self.headers = dict(headers or {})
        self.reconnect = reconnect
        self.fixed_retry = retry
        self.persistent = persistent
        self.receive_buffer = receive_buffer
        self.patience = patience
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._reading = threading.Event()
        self._reading.set()
        self._thread = threading.Thread(target=self._run, name=f"client of {url}", daemon=True)

    def start(self) -> StreamClient:
        self._thread.start()
        return self

    def close(self) -> None:
        """Cuts the connection and connects no more."""
        self._closed.set()
        self._reading.set()
        self.cut()
        if self._thread.is_alive():
            self._thread.join(HEALTHY)

    def cut(self) -> None:
        """Cuts the connection at this instant, as a lost network would; it then connects again."""
        with self._lock:
            if self._socket is not None and self.connections:
                self.ended("cut")
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def pause(self) -> None:
        """Stops reading, the connection stays open; one more read may come through."""
        self._reading.clear()

    def resume(self) -> None:
        self._reading.set()

    def wait_for(
        self, wanted: int | Callable[[Transcript], object], timeout: float = HEALTHY
    ) -> StreamClient:
        """Waits for a number of events, or for `wanted(client)` to be true."""
        is_so = condition(wanted)
        wait_until(lambda: is_so(self), timeout, lambda: f"{wanted} did not come: {self.summary()}")
        return self

    def wait_open(self, timeout: float = HEALTHY) -> StreamClient:
        """Waits until it is connected and has had its first frame."""
        return self.wait_for(lambda client: client.is_open, timeout)

    def summary(self) -> str:
        ends = [f"{c.status} {c.end or 'lasts'} {c.body[:200]!r}" for c in self.connections[-5:]]
        silent = f"{time.monotonic() - self.arrivals[-1].at:.1f} s" if self.arrivals else "always"
        return (
            f"{len(self.events)} events, cursor {self.last_event_id!r}, silent for {silent}, "
            f"{'open' if self.is_open else 'not open'}, connections {ends}"
        )

    def _run(self) -> None:
        while not self._closed.is_set():
            self._connect_once()
            if not self.reconnect or not (self.persistent or self.connections[-1].is_stream):
                return
            self._closed.wait(self._pause())

    def _pause(self) -> float:
        if self.fixed_retry is not None:
            return self.fixed_retry
        return 3.0 if self.retry is None else self.retry / 1000

    def _connect_once(self) -> None:
        exchange = Exchange(self.url, self.headers, self)
        try:
            with self._open(exchange.address) as connected:
                connected.sendall(exchange.request())
                while self._reading.wait() and exchange.receive(connected.recv(READ_SIZE)):
                    connected.settimeout(None if self.is_open else self.patience)
        except OSError as error:
            self.ended(str(error))
        finally:
            with self._lock:
                self._socket = None

    def _open(self, address: tuple[str, int]) -> socket.socket:
        connected = socket.socket()
        try:
            if self.receive_buffer is not None:
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
            connected.settimeout(HEALTHY)
            connected.connect(address)
            if self.url.startswith("https:"):
                connected = trusting().wrap_socket(connected)
            connected.settimeout(self.patience)
            with self._lock:
                if self._closed.is_set():
                    raise ConnectionAbortedError("closed")
                self._socket = connected
        except BaseException:
            connected.close()
            raise
        return connected

    def __enter__(self) -> StreamClient:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()
