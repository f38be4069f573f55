"""Background tasks that have a name: at most one of each runs, and none fails unseen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

logger = logging.getLogger(__name__)


class NamedTasks:
    """The tasks of one owner, on one event loop."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def ensure(self, name: Hashable, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `function()` unless the task of that name is still running."""
        running = self._tasks.get(name)
        # One that is done may still be listed: its callback runs a turn of the loop later.
        if running is None or running.done():
            task = asyncio.get_running_loop().create_task(function())
            self._tasks[name] = task
            task.add_done_callback(lambda done: self._finished(name, done))

    def cancel(self) -> None:
        """Cancel all of them."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()

    def _finished(self, name: Hashable, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("The task %s of an event stream hub failed", name, exc_info=error)
