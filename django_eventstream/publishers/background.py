"""A thread that sends events while their senders go on."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from weakref import WeakSet, finalize

from django_eventstream.events import Event
from django_eventstream.exceptions import PublishError

logger = logging.getLogger(__name__)

Send = Callable[[Sequence[Event]], Coroutine[Any, Any, None]]

QUEUE_CHARACTERS = 16 * 1024 * 1024
"""Most data that waits to be sent. More is not: what is in the log is found there."""

EVENT_OVERHEAD = 200


@dataclass(frozen=True, slots=True)
class _Job:
    events: Sequence[Event]
    done: Future[None]

    @property
    def size(self) -> int:
        return sum(len(event.data) + EVENT_OVERHEAD for event in self.events)


class _Queue:
    """What waits for the thread, a bounded amount."""

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._size = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, job: _Job) -> bool:
        """Say whether there was room."""
        with self._changed:
            is_full = bool(self._jobs) and self._size + job.size > QUEUE_CHARACTERS
            if is_full or self._is_closed:
                return False
            self._jobs.append(job)
            self._size += job.size
            self._changed.notify()
            return True

    def take_all(self) -> list[_Job]:
        """Wait for something and take all of it; nothing once the queue is closed and empty."""
        with self._changed:
            while not self._jobs and not self._is_closed:
                self._changed.wait()
            jobs = list(self._jobs)
            self._jobs.clear()
            self._size = 0
            return jobs

    def close(self) -> None:
        """Take nothing more; what is in it is still sent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()


class BackgroundSender:
    """Sends in a thread and an event loop of its own, in order, and flushes when Python ends.

    `make_send()` is called in the thread; what it returns sends events or raises, and is used on
    one event loop only. A process that forks starts again with an empty queue: what waits is
    sent by the parent.
    """

    def __init__(self, name: str, make_send: Callable[[], Send], timeout: float) -> None:
        self._is_refusing = False
        self._name = name
        self._make_send = make_send
        self._timeout = timeout
        self._start_over()
        _live_senders().add(self)

    def send(self, events: Sequence[Event], *, wait: bool = False) -> None:
        """Send later, and never fail; with `wait` return when sent, or raise `PublishError`."""
        job = _Job(events, Future())
        if self._is_running() and self._queue.put(job):
            self._is_refusing = False
        else:
            self._refuse(job)
        if wait:
            self._wait(job)

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._queue = _Queue()
        self._thread: threading.Thread | None = None
        self._finalizer: finalize[..., BackgroundSender] | None = None
        self._is_refusing = False

    def _is_running(self) -> bool:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._start_thread()
        return self._thread is not None

    def _start_thread(self) -> None:
        thread = threading.Thread(
            target=_run,
            args=(self._name, self._queue, self._make_send),
            name=f"eventstream to {self._name}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # Python is about to end, or the system has no more threads.
            return
        self._thread = thread
        self._finalizer = finalize(self, _finish, self._queue, thread, self._timeout)

    def _wait(self, job: _Job) -> None:
        # Two timeouts: another send may be under way when this one begins.
        try:
            job.done.result(2 * self._timeout)
        except Exception as error:
            text = str(error) or type(error).__name__
            raise PublishError(f"{self._name} did not take the event: {text}") from error

    def _refuse(self, job: _Job) -> None:
        job.done.set_exception(PublishError("too much is waiting already"))
        if not self._is_refusing:
            self._is_refusing = True
            logger.warning("%s: too many events wait, some are not sent", self._name)

    def forked(self) -> None:
        """Begin anew in a child process, in which no thread but the forking one goes on."""
        if self._finalizer is not None:
            self._finalizer.detach()
        self._start_over()


def _run(name: str, queue: _Queue, make_send: Callable[[], Send]) -> None:
    loop = _Loop()
    is_reached = True
    send: Send | None = None
    try:
        while jobs := queue.take_all():
            try:
                send = send or make_send()
                loop.run_until_complete(send([event for job in jobs for event in job.events]))
            except Exception as error:  # whatever the client of a broker raises
                if is_reached:
                    text = str(error) or type(error).__name__
                    logger.warning("%s does not take events now: %s", name, text)
                is_reached = False
                _settle(jobs, partial(Future.set_exception, exception=error))
            else:
                if not is_reached:
                    logger.info("%s takes events again", name)
                is_reached = True
                _settle(jobs, partial(Future.set_result, result=None))
    finally:
        loop.close()


def _settle(jobs: Sequence[_Job], settle: Callable[[Future[None]], None]) -> None:
    for job in jobs:
        settle(job.done)


def _finish(queue: _Queue, thread: threading.Thread, timeout: float) -> None:
    queue.close()
    if thread is not threading.current_thread():
        thread.join(timeout)


@cache
def _live_senders() -> WeakSet[BackgroundSender]:
    senders: WeakSet[BackgroundSender] = WeakSet()

    def start_over_in_child() -> None:
        for sender in list(senders):
            sender.forked()

    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=start_over_in_child)
    return senders


class _Loop(asyncio.SelectorEventLoop):
    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Ask for addresses in this thread, which has nothing else to do.

        asyncio would ask in another one, which Python does not start any more once it ends.
        """
        return socket.getaddrinfo(host, port, **options)
