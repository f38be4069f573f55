"""Background tasks that have a name: at most one of each runs, and none ends unseen."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Hashable
from contextvars import Context
from typing import Any

from django_eventstream.deadlines import LONGEST_PAUSE_SECONDS, growing_pause

logger = logging.getLogger(__name__)

Function = Callable[[], Coroutine[Any, Any, None]]

REPORT_SECONDS = 60.0
"""Failures of one kind of task are logged once in so long: thousands of channels may share one."""


class NamedTasks:
    """The tasks of one owner, on one event loop.

    Whatever ends a task but its owner, an error that nobody thought of included, is logged and
    counted, and the task is begun again after a growing pause.
    """

    def __init__(self) -> None:
        self.failures = 0
        """How many tasks ended that should not have."""
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}
        self._pauses: dict[Hashable, asyncio.TimerHandle] = {}
        self._reported: dict[str, float] = {}

    def ensure(self, name: Hashable, function: Function) -> None:
        """Run `function()` until it returns, unless the task of that name is still running.

        A name is a string, or a tuple that begins with one.
        """
        running = self._tasks.get(name)
        # One that is done may still be listed: its callback runs a turn of the loop later.
        if name not in self._pauses and (running is None or running.done()):
            self._begin(name, function, 0)

    def supervise(self, name: Hashable, function: Function) -> None:
        """Run `function()` for ever, as `ensure()` does: not even returning ends it."""
        self.ensure(name, lambda: _for_ever(function))

    def cancel(self) -> None:
        """Cancel all of them."""
        tasks, self._tasks = self._tasks, {}
        pauses, self._pauses = self._pauses, {}
        for pause in pauses.values():
            pause.cancel()
        for task in tasks.values():
            task.cancel()

    def _begin(self, name: Hashable, function: Function, failures: int) -> None:
        self._pauses.pop(name, None)
        began = time.monotonic()
        # Nothing of the context of the client, or of the sender, with whom it happens to begin.
        task = Context().run(asyncio.get_running_loop().create_task, function())
        self._tasks[name] = task

        def ended(task: asyncio.Task[None]) -> None:
            has_lasted = time.monotonic() - began > LONGEST_PAUSE_SECONDS
            self._ended(name, function, task, 0 if has_lasted else failures)

        task.add_done_callback(ended)

    def _ended(
        self, name: Hashable, function: Function, task: asyncio.Task[None], failures: int
    ) -> None:
        error = _failure(task)
        if error is not None:
            self._report(name, error)
        if self._tasks.get(name) is not task:
            # Its owner has cancelled it, or begun it again after it had returned.
            return
        del self._tasks[name]
        if error is not None:
            self._pauses[name] = asyncio.get_running_loop().call_later(
                growing_pause(failures), self._begin, name, function, failures + 1
            )

    def _report(self, name: Hashable, error: BaseException) -> None:
        self.failures += 1
        kind = str(name[0] if isinstance(name, tuple) else name)
        now = time.monotonic()
        if now >= self._reported.get(kind, now):
            self._reported[kind] = now + REPORT_SECONDS
            logger.error(
                "The task %r of an event stream hub failed, and begins again", kind, exc_info=error
            )


def _failure(task: asyncio.Task[None]) -> BaseException | None:
    """Return what ended a task before its time; None where it returned, or was to be cancelled."""
    if not task.cancelled():
        return task.exception()
    # Before Python 3.11 nobody knows whether it was the task that somebody cancelled (its owner, or
    # `asyncio.run()` in the end), or what it waited for.
    is_meant = getattr(task, "cancelling", lambda: 1)()
    return None if is_meant else asyncio.CancelledError("what it waited for was cancelled")


async def _for_ever(function: Function) -> None:
    await function()
    raise RuntimeError("a task that should last for ever has returned")
