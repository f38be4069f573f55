"""Very many clients that cost little: they keep the bytes, and are asked about them later."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from urllib.parse import urlsplit

from tests.services.deadline import wait_until
from tests.swarm import allow_files
from tests.transcript import assert_same

PATIENCE = 120
EVENT = re.compile(rb'"n": (\d+)(?:, "at": ([\d.]+))?')


class Client(asyncio.Protocol):
    """One connection. An event is never divided by the chunks of HTTP, so that it can be found."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.pieces: list[bytes] = []
        self.times: list[float] = []
        self.is_open = True

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self.times.append(time.monotonic())

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False

    def has_opened(self) -> bool:
        return b"stream-open" in b"".join(self.pieces[:5])

    def has_last(self, number: int) -> bool:
        """Whether an event that nothing follows is there."""
        return b'"n": %d' % number in b"".join(self.pieces[-2:])

    def numbers(self) -> list[int]:
        return [int(number) for number, _ in EVENT.findall(b"".join(self.pieces))]

    def latencies(self) -> list[float]:
        """How long each event took since the moment that is written in it."""
        ends = list(accumulate(map(len, self.pieces)))
        found = EVENT.finditer(b"".join(self.pieces))
        return [self.times[bisect_left(ends, event.end())] - float(event[2]) for event in found]


class Crowd:
    """`count` clients of one URL, open when it is entered; `at_once` of them connect at a time.

    A Django under ASGI serves them all at once, each with a database connection of its own while
    it looks up the user: too many, and PostgreSQL turns some away.
    """

    def __init__(
        self,
        url: str,
        count: int,
        headers: Mapping[str, str] | None = None,
        *,
        at_once: int = 50,
    ) -> None:
        self.at_once = at_once
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        lines = [f"GET {parts.path}?{parts.query} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        request = "\r\n".join([*lines, "", ""]).encode()
        self.clients = [Client(request) for _ in range(count)]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Crowd:
        allow_files(len(self.clients) + 500)
        self._thread.start()
        for start in range(0, len(self.clients), self.at_once):
            some = self.clients[start : start + self.at_once]
            asyncio.run_coroutine_threadsafe(self._connect(some), self._loop).result(60)
            wait_for_each(some, Client.has_opened)
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_for_last(self, number: int) -> None:
        wait_for_each(self.clients, lambda client: client.has_last(number))

    def assert_sequence(self, last: int) -> None:
        """Each client has exactly 1 to `last`, over one connection."""
        for client in self.clients:
            assert_same("numbers", client.numbers(), list(range(1, last + 1)))
            assert client.is_open, "a connection was cut"

    def latencies(self, warm_up: int) -> list[float]:
        """How long each event after the first `warm_up` took to each client."""
        return [seconds for client in self.clients for seconds in client.latencies()[warm_up:]]

    async def _connect(self, clients: list[Client]) -> None:
        await asyncio.gather(
            *(
                self._loop.create_connection(lambda client=client: client, *self._address)
                for client in clients
            )
        )

    async def _close(self) -> None:
        for client in self.clients:
            client.transport.abort()
        await asyncio.sleep(0)


def wait_for_each(clients: Sequence[Client], is_so: Callable[[Client], bool]) -> None:
    waiting = list(clients)

    def all_are() -> bool:
        waiting[:] = [client for client in waiting if not is_so(client)]
        return not waiting

    def report() -> str:
        return f"{len(waiting)} clients still wait, the first one after {waiting[0].pieces[-2:]}"

    wait_until(all_are, PATIENCE, report)
