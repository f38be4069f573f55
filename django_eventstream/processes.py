"""The life of a process: what begins anew in a child, and what is finished before the end.

A fork copies every lock as it is, and no thread but the one that forks: a lock that another thread
held is never released in the child, and a queue has nobody who works on it. So whatever has a
lock, a thread or a queue registers here, and makes new ones in the child. What waited belongs to
the parent, which finishes it. A `functools.lru_cache` needs none of this: it has no lock that
Python code can be in the middle of.

Nothing here takes a lock, since a fork may come at any time.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable
from itertools import count
from multiprocessing import parent_process, util
from typing import Any, Generic, TypeVar
from weakref import WeakMethod

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
"""How long a process that ends waits for its queues."""

FLUSH_PRIORITY = -50
"""When `multiprocessing` calls us at the end of a child: after its own users (0 and more), whose
last words may be events, and before it removes its temporary files (-100)."""

Callback = TypeVar("Callback", bound=Callable[..., object])


class _Callbacks(Generic[Callback]):
    """Functions, and methods of objects for as long as these live.

    A `WeakSet` will not do: a fork in the middle of an iteration leaves its guard behind.
    """

    def __init__(self) -> None:
        self._numbers = count()
        self._kept: dict[int, Callable[[], Callback | None]] = {}

    def add(self, callback: Any) -> None:
        number = next(self._numbers)
        if hasattr(callback, "__func__"):
            self._kept[number] = WeakMethod(callback, lambda _: self._kept.pop(number, None))
        else:
            self._kept[number] = lambda: callback

    def living(self) -> list[Callback]:
        found = [get() for get in list(self._kept.values())]
        return [callback for callback in found if callback is not None]


_in_child: _Callbacks[Callable[[], object]] = _Callbacks()
_at_exit: _Callbacks[Callable[[float], object]] = _Callbacks()


class _Finalizer:
    is_registered = False


def after_fork(begin_anew: Callable[[], object]) -> None:
    """Call this in every child process that this one forks, before anything else runs there.

    A method does not keep its object alive. It must not raise, nor wait for anything.
    """
    _in_child.add(begin_anew)


def before_exit(finish: Callable[[float], object]) -> None:
    """Call `finish(deadline)` before this process ends, or a child of it that has work to do.

    The deadline is one of `time.monotonic()`. A method does not keep its object alive. Whoever
    takes on work says so by `expect_exit()`.
    """
    _at_exit.add(finish)


def expect_exit() -> None:
    """Make sure that this process does not end without `flush()`.

    A child of `multiprocessing` that was forked leaves by `os._exit()`, without the handlers of
    `atexit`. It calls its own finalizers, and forgets those that were there when it began.
    """
    if not _Finalizer.is_registered and parent_process() is not None:
        _Finalizer.is_registered = True
        util.Finalize(None, flush, exitpriority=FLUSH_PRIORITY)


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Send what still waits to be sent, with one try, and wait for it this long at most.

    Python calls it when a process ends, and `multiprocessing` at the end of its children. Call it
    before `os._exit()`; a process that a signal kills does not come here.
    """
    deadline = time.monotonic() + seconds
    for finish in _at_exit.living():
        try:
            finish(deadline)
        except Exception:
            # The others have something to send as well.
            logger.exception("What still waits to be sent may be lost")


def is_under_test() -> bool:
    """Say whether Django's `setup_test_environment()` was called; nothing is imported for it."""
    state = getattr(sys.modules.get("django.test.utils"), "_TestState", None)
    return hasattr(state, "saved_data")


def _begin_anew() -> None:
    _Finalizer.is_registered = False
    for begin_anew in _in_child.living():
        begin_anew()


atexit.register(flush)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_anew)
