"""A thread that sends events while their senders go on."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from importlib import metadata
from weakref import finalize

from django_eventstream import processes
from django_eventstream.events import Event
from django_eventstream.exceptions import PublishError

logger = logging.getLogger(__name__)

Send = Callable[[Sequence[Event]], Iterator[int]]
"""Sends events in order, and yields how many more of them the broker has taken; or raises."""

MakeSend = Callable[[], AbstractContextManager[Send]]

QUEUE_CHARACTERS = 16 * 1024 * 1024
"""Most data that waits to be sent. More is not: what is in the log is found there."""

EVENT_OVERHEAD = 200

_ERRORS = (Exception, asyncio.CancelledError)
"""Whatever the client of a broker raises."""


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
            if self._jobs and self._size + job.size > QUEUE_CHARACTERS:
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
            return self._take()

    def close(self) -> None:
        """End the thread once it has sent what is in the queue."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def give_up(self, why: str) -> int:
        """Let go of what is still there; return how many events."""
        with self._changed:
            jobs = self._take()
        _fail(jobs, PublishError(why))
        return sum(len(job.events) for job in jobs)

    def _take(self) -> list[_Job]:
        jobs = list(self._jobs)
        self._jobs.clear()
        self._size = 0
        return jobs


class BackgroundSender:
    """Sends in a thread of its own, in order, and flushes when Python ends.

    `make_send()` is entered in the thread, and left when the thread ends; what it yields sends
    events or raises. No event loop may run in the thread: where gevent or eventlet makes a greenlet
    of it, the loop would run in all others of the process as well, and Django refuses its database
    to code in a loop. A process that forks starts again with an empty queue: what waits is sent by
    the parent.
    """

    def __init__(self, name: str, make_send: MakeSend, timeout: float) -> None:
        self._name = name
        self._make_send = make_send
        self._timeout = timeout
        self._finalizer: finalize[..., BackgroundSender] | None = None
        _import_now()
        self._begin()
        processes.after_fork(self._begin)
        processes.before_exit(self.flush)

    def send(self, events: Sequence[Event], *, wait: bool = False) -> None:
        """Send later, and never fail; with `wait` return when sent, or raise `PublishError`.

        It waits for two timeouts at most: another send may be under way when this one begins.
        """
        job = _Job(events, Future())
        with self._lock:
            why = self._put(job)
        if why is not None:
            job.done.set_exception(PublishError(why))
        self._report(why)
        if wait:
            self._wait(job)

    def flush(self, deadline: float) -> None:
        """Wait until all is sent, one timeout at most; what comes later has a new thread."""
        with self._lock:
            thread, queue = self._thread, self._queue
            self._begin()
        queue.close()
        if thread is not None:
            thread.join(max(0.0, min(deadline - time.monotonic(), self._timeout)))
        if lost := queue.give_up("the process ended first"):
            logger.warning("%s: %d events were not sent before the process ended", self._name, lost)

    def _begin(self) -> None:
        # A signal handler may send as well, in the middle of whatever its thread does.
        self._lock = threading.RLock()
        self._queue = _Queue()
        self._thread: threading.Thread | None = None
        self._is_refusing = False
        if self._finalizer is not None:
            self._finalizer.detach()  # It would close the queue of the parent process.

    def _put(self, job: _Job) -> str | None:
        """Queue a job; say why if it cannot be sent."""
        if self._thread is None or not self._thread.is_alive():
            try:
                self._start_thread()
            except RuntimeError as error:  # The process is ending, or there are too many threads.
                return str(error)
        return None if self._queue.put(job) else "too many events wait already"

    def _start_thread(self) -> None:
        thread = threading.Thread(
            target=_run,
            args=(self._name, self._queue, self._make_send),
            name=f"eventstream to {self._name}",
            daemon=True,
        )
        thread.start()
        self._thread = thread
        self._finalizer = finalize(self, self._queue.close)
        self._finalizer.atexit = False
        processes.expect_exit()

    def _wait(self, job: _Job) -> None:
        try:
            job.done.result(2 * self._timeout)
        except _ERRORS as error:
            text = _text(error) if job.done.done() else f"not within {2 * self._timeout:g} s"
            raise PublishError(f"{self._name} did not take the event: {text}") from error

    def _report(self, why: str | None) -> None:
        if why is not None and not self._is_refusing:
            logger.warning("%s: some events are not sent: %s", self._name, why)
        self._is_refusing = why is not None


def _import_now() -> None:
    """Have Python import what redis-py makes it import when the first client is made.

    If a process forks while a thread imports something, the import never ends in the child: it
    would wait for it in the thread that sends, for as long as it lives.
    """
    with suppress(metadata.PackageNotFoundError):
        metadata.version("django")


def _run(name: str, queue: _Queue, make_send: MakeSend) -> None:
    is_reached = True
    send: Send | None = None
    with ExitStack() as stack:
        while jobs := queue.take_all():
            try:
                send = send or stack.enter_context(make_send())
                _send(send, jobs)
            except _ERRORS as error:
                if is_reached:
                    logger.warning("%s does not take events now: %s", name, _text(error))
                is_reached = False
                _fail(jobs, error)
            else:
                if not is_reached:
                    logger.info("%s takes events again", name)
                is_reached = True


def _send(send: Send, jobs: Sequence[_Job]) -> None:
    """Send all; a job is done as soon as all of its events were taken."""
    waiting = deque(jobs)
    taken = 0
    for count in send([event for job in jobs for event in job.events]):
        taken += count
        while waiting and len(waiting[0].events) <= taken:
            job = waiting.popleft()
            taken -= len(job.events)
            job.done.set_result(None)
    for job in waiting:  # They have no events.
        job.done.set_result(None)


def _fail(jobs: Sequence[_Job], error: BaseException) -> None:
    for job in jobs:
        if not job.done.done():
            job.done.set_exception(error)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
