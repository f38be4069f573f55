"""Very many clients in one thread."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from tests.http_stream import Exchange
from tests.services.deadline import HEALTHY, wait_until
from tests.transcript import Transcript, condition

READ_SIZE = 65_536


class Member(Transcript):
    """One client of a swarm."""

    def __init__(self, url: str, headers: Mapping[str, str], last_event_id: str) -> None:
        super().__init__(last_event_id)
        self.url = url
        self.headers = headers
        self.writer: asyncio.StreamWriter | None = None

    async def connect_once(self) -> None:
        exchange = Exchange(self.url, self.headers, self)
        try:
            reader, self.writer = await asyncio.open_connection(*exchange.address)
            self.writer.write(exchange.request())
            while exchange.receive(await reader.read(READ_SIZE)):
                pass
        except OSError as error:
            self.ended(str(error))
        finally:
            self.ended("cut")
            self.cut()

    def cut(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()


class Swarm:
    """A client for each of `urls`, all opened at once, each a `Transcript` in `members`.

    A member whose stream ends connects again after `retry` seconds; `None` lets it end. `headers`
    are everybody's; `last_event_id` is everybody's first cursor.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
        last_event_id: str = "",
        retry: float | None = 0.05,
    ) -> None:
        self.members = [Member(url, headers or {}, last_event_id) for url in urls]
        self.retry = retry
        self._loop = asyncio.new_event_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="swarm", daemon=True)

    def start(self) -> Swarm:
        allow_files(len(self.members) + 500)
        self._thread.start()
        self._call(self._start)
        return self

    def cut(self) -> None:
        """Cuts all connections at once; whoever may, connects again."""
        self._call(lambda: [member.cut() for member in self.members])

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result(HEALTHY)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_for(
        self, wanted: int | Callable[[Transcript], object], timeout: float = HEALTHY
    ) -> Swarm:
        """Waits until every member has that many events, or `wanted(member)` is true of each."""
        is_so = condition(wanted)
        waiting = list(self.members)

        def all_are() -> bool:
            waiting[:] = [member for member in waiting if not is_so(member)]
            return not waiting

        wait_until(all_are, timeout, lambda: self._report(waiting))
        return self

    def wait_open(self, timeout: float = HEALTHY) -> Swarm:
        return self.wait_for(lambda member: member.is_open, timeout)

    def _report(self, waiting: list[Member]) -> str:
        last = waiting[0].connections[-1:] or "no connection"
        return f"{len(waiting)} of {len(self.members)} still wait; the first: {last}"

    def _start(self) -> None:
        self._tasks = [self._loop.create_task(self._live(member)) for member in self.members]

    async def _live(self, member: Member) -> None:
        await member.connect_once()
        while self.retry is not None:
            await asyncio.sleep(self.retry)
            await member.connect_once()

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A transport that was aborted is closed by the loop's next turn.
        await asyncio.sleep(0)

    def _call(self, function: Callable[[], object]) -> None:
        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(HEALTHY)

    def __enter__(self) -> Swarm:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def allow_files(number: int) -> None:
    """Raises this process's limit of open files, as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number and soft != resource.RLIM_INFINITY:
        with suppress(ValueError):
            limit = number if hard == resource.RLIM_INFINITY else min(hard, number)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
