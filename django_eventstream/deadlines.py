"""Waiting that ends: deadlines for awaitables, and for calls that may block for ever.

A call that blocks is made in a thread. One that is overdue is abandoned, not waited for: its
thread ends by itself when the call returns, and what it returns is dropped. Threads are daemons, so
that one that never returns does not keep the process from ending; `concurrent.futures` joins its
threads when Python ends.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import finalize

Result = TypeVar("Result")
_Job = tuple[Callable[[], Any], Callable[[Any], None], "asyncio.Future[Any]"]

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 15.0

END_SECONDS = 1.0
"""How long a thread that was ended may take to end, on a machine that is busy."""


class NoThreadError(Exception):
    """There is no thread for a call: too many hang already, or the system has no more."""


def growing_pause(failures: int) -> float:
    """Return how many seconds to wait after so many failures before this one, spread at random."""
    # The exponent has a limit, too: a server may be gone for days.
    longest: float = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failures, 10))
    return longest * random.uniform(0.5, 1)


async def within(awaitable: Awaitable[Result], seconds: float) -> Result:
    """Wait for so long, then cancel it and raise `TimeoutError`.

    `asyncio.wait_for()` loses a cancellation before Python 3.12, and waits for one that does not
    end when it is cancelled.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        task.cancel()
        task.add_done_callback(_ignore_outcome)
    if not done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return task.result()


def _ignore_outcome(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _drop(result: object) -> None:
    pass


class Worker:
    """A thread that makes one call after the other, until it is ended or nobody has it any more."""

    def __init__(self, name: str, at_start: Callable[[], None], at_end: Callable[[], None]) -> None:
        """`at_start()` and `at_end()` are called in the thread. Raises `NoThreadError`."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._asked = 0
        self._done = [0]
        """How many calls have returned; written by the thread alone."""
        self._ended_at = inf
        self._thread = threading.Thread(
            target=_work, args=(self._jobs, self._done, at_start, at_end), name=name, daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:
            raise NoThreadError(str(error)) from error
        finalize(self, self._jobs.put, None).atexit = False

    @property
    def is_alive(self) -> bool:
        """Whether its thread has not ended."""
        return self._thread.is_alive()

    def hangs(self, now: float) -> bool:
        """Say whether it is in a call, or should have ended some time ago.

        One that was ended a moment ago only waits for the processor.
        """
        is_busy = self._asked > self._done[0]
        return self.is_alive and (is_busy or now > self._ended_at + END_SECONDS)

    def call(
        self, function: Callable[[], Result], unwanted: Callable[[Result], None] = _drop
    ) -> asyncio.Future[Result]:
        """Return a future of the running loop; cancel it when nobody waits for it any more.

        What the function returns then is passed to `unwanted()`.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._asked += 1
        self._jobs.put((function, unwanted, future))
        return future

    def end(self) -> None:
        """End the thread when it has done what it was asked for; does not wait."""
        self._ended_at = min(self._ended_at, time.monotonic())
        self._jobs.put(None)


def _work(
    jobs: SimpleQueue[_Job | None],
    done: list[int],
    at_start: Callable[[], None],
    at_end: Callable[[], None],
) -> None:
    try:
        at_start()
        while (job := jobs.get()) is not None:
            _do(*job)
            done[0] += 1
            # Whatever was asked for and answered is not kept until the next question.
            del job
    finally:
        at_end()


def _do(
    function: Callable[[], Any], unwanted: Callable[[Any], None], future: asyncio.Future[Any]
) -> None:
    try:
        result, error = function(), None
    except BaseException as raised:
        result, error = None, raised
    try:
        future.get_loop().call_soon_threadsafe(_settle, future, result, error, unwanted)
    except RuntimeError:  # The loop has ended.
        if error is None:
            unwanted(result)


def _settle(
    future: asyncio.Future[Any],
    result: Any,
    error: BaseException | None,
    unwanted: Callable[[Any], None],
) -> None:
    if future.done():
        if error is None:
            unwanted(result)
    elif error is None:
        future.set_result(result)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        future.set_exception(error)
    else:
        future.set_exception(RuntimeError(f"a thread ended with {error!r}"))


class Threads:
    """A bounded number of threads. Belongs to one event loop."""

    def __init__(
        self,
        name: str,
        pauses: Sequence[float],
        at_end: Callable[[], None] = lambda: None,
        *,
        at_start: Callable[[], None] = lambda: None,
    ) -> None:
        """`pauses[n]`: seconds between the last start and the next while `n` threads hang.

        At most as many threads hang as there are pauses.
        """
        self._name = name
        self._pauses = pauses
        self._at_start = at_start
        self._at_end = at_end
        self._workers: list[Worker] = []
        self._started_at = -float("inf")

    @property
    def alive(self) -> int:
        """How many threads have not ended."""
        return sum(worker.is_alive for worker in self._workers)

    def start(self) -> Worker:
        """Start a thread; raises `NoThreadError`."""
        now = time.monotonic()
        self._workers = [worker for worker in self._workers if worker.is_alive]
        hang = sum(worker.hangs(now) for worker in self._workers)
        is_full = hang >= len(self._pauses) or len(self._workers) >= 2 * len(self._pauses)
        if is_full or now < self._started_at + self._pauses[hang]:
            raise NoThreadError(f"{hang} calls hang already")
        worker = Worker(self._name, self._at_start, self._at_end)
        self._started_at = now
        self._workers.append(worker)
        return worker

    async def call(
        self,
        function: Callable[[], Result],
        seconds: float,
        unwanted: Callable[[Result], None] = _drop,
    ) -> Result:
        """Make a call in a thread of its own; raises `TimeoutError`, and `NoThreadError`."""
        worker = self.start()
        answer = worker.call(function, unwanted)
        try:
            return await within(answer, seconds)
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.exception() is None:
                # It came in the same moment.
                unwanted(answer.result())
            raise
        finally:
            worker.end()
