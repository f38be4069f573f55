"""Waits that end: what is overdue is abandoned, and cleans up after itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from django_eventstream.deadlines import NoThreadError, Threads, growing_pause, within
from tests.services.deadline import HEALTHY

EXIT = """
import asyncio, threading
from django_eventstream.deadlines import Threads

async def main():
    try:
        await Threads("hung", [0]).call(threading.Event().wait, 0.05)
    except TimeoutError:
        print("abandoned")

asyncio.run(main())
"""


async def until(is_so) -> None:
    async def asking() -> None:
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    await asyncio.wait_for(asking(), HEALTHY)


class Frozen:
    """A call that returns when it is told to, and an end that is noted."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.ended = 0

    def call(self) -> str:
        self.goes_on.wait(HEALTHY)
        return "late"

    def end(self) -> None:
        self.ended += 1


def test_a_call_that_is_overdue_is_abandoned_and_its_late_result_is_dropped():
    async def main() -> None:
        frozen, unwanted = Frozen(), []
        threads = Threads("t", [0], frozen.end)
        with pytest.raises(TimeoutError):
            await threads.call(frozen.call, 0.05, unwanted.append)
        assert (threads.alive, frozen.ended, unwanted) == (1, 0, [])
        frozen.goes_on.set()
        await until(lambda: threads.alive == 0)
        await until(lambda: unwanted == ["late"])
        assert frozen.ended == 1

    asyncio.run(main())


def test_a_result_that_comes_after_its_event_loop_ended_is_dropped():
    frozen, unwanted = Frozen(), []
    threads = Threads("t", [0], frozen.end)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await threads.call(frozen.call, 0.05, unwanted.append)

    asyncio.run(main())
    frozen.goes_on.set()

    async def afterwards() -> None:
        await until(lambda: threads.alive == 0)

    asyncio.run(afterwards())
    assert unwanted == ["late"]


def test_a_caller_that_is_cancelled_abandons_its_call():
    async def main() -> None:
        frozen = Frozen()
        threads = Threads("t", [0], frozen.end)
        calling = asyncio.ensure_future(threads.call(frozen.call, 20))
        await until(lambda: threads.alive)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        frozen.goes_on.set()
        await until(lambda: frozen.ended == 1)

    asyncio.run(main())


def test_a_result_that_comes_in_the_moment_of_a_cancellation_is_dropped():
    async def main() -> None:
        unwanted = []
        for _ in range(20):
            calling = asyncio.ensure_future(Threads("t", [0]).call(lambda: 7, 5, unwanted.append))
            await asyncio.sleep(0)
            calling.get_loop().call_later(0.01, calling.cancel)
            time.sleep(0.02)  # noqa: ASYNC251 - so that the loop finds both at once
            with pytest.raises(asyncio.CancelledError):
                await calling
        assert unwanted == [7] * 20

    asyncio.run(main())


def test_calls_that_hang_are_bounded_and_paced():
    async def main() -> None:
        frozen = Frozen()
        threads = Threads("t", [0, 0, 3600], frozen.end)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await threads.call(frozen.call, 0.01)
        with pytest.raises(NoThreadError, match="2 calls hang"):  # it is not yet time
            await threads.call(frozen.call, 0.01)
        frozen.goes_on.set()
        await until(lambda: threads.alive == 0)
        assert await threads.call(lambda: "again", 5) == "again"

    asyncio.run(main())


def test_errors_of_a_call_reach_the_caller_whatever_they_are():
    def fail(error: BaseException):
        raise error

    async def main() -> None:
        threads = Threads("t", [0] * 9)
        with pytest.raises(KeyError):
            await threads.call(lambda: fail(KeyError("no")), 5)
        for error in (StopIteration(), SystemExit()):  # a future takes neither
            with pytest.raises(RuntimeError, match="ended with"):
                await threads.call(lambda error=error: fail(error), 5)

    asyncio.run(main())


def test_a_thread_is_made_ready_before_its_first_call():
    async def main() -> None:
        done = []
        worker = Threads("t", [0], lambda: done.append(3), at_start=lambda: done.append(1)).start()
        await worker.call(lambda: done.append(2))
        worker.end()
        await until(lambda: done == [1, 2, 3])

    asyncio.run(main())


def test_a_system_without_threads_is_said_so(monkeypatch):
    def start(self) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        threads = Threads("t", [0])
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(NoThreadError, match="can't start new thread"):
                await threads.call(int, 5)
        assert await threads.call(int, 5) == 0

    asyncio.run(main())


def test_a_worker_that_nobody_has_any_more_ends():
    async def main() -> None:
        ended = threading.Event()
        worker = Threads("t", [0], ended.set).start()
        assert await worker.call(lambda: 7) == 7
        del worker
        await until(ended.is_set)

    asyncio.run(main())


def test_a_thread_that_hangs_for_ever_does_not_keep_the_process_from_ending():
    """Threads of `concurrent.futures` are joined when Python ends: SIGTERM ended no server."""
    done = subprocess.run(
        [sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "abandoned\n"


def test_an_awaitable_that_is_overdue_is_cancelled():
    async def main() -> None:
        waited = asyncio.get_running_loop().create_future()
        with pytest.raises(TimeoutError, match="within"):
            await within(waited, 0.01)
        assert waited.cancelled()
        assert await within(asyncio.sleep(0, "in time"), 5) == "in time"

    asyncio.run(main())


def test_pauses_grow_up_to_a_limit():
    assert growing_pause(0) < 0.3
    assert 5 < growing_pause(10_000) <= 15


def test_threads_that_were_ended_a_moment_ago_do_not_count_as_hanging():
    """On a busy machine the log was not asked: three clients had come and gone too quickly."""
    gate = threading.Event()
    threads = Threads("ending", (0, 60), at_end=lambda: gate.wait(5) and None)
    try:
        for _ in range(3):
            threads.start().end()
        assert threads.alive == 3
    finally:
        gate.set()
