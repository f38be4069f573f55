"""Calling a function in a thread that no request has used, or in one that is no greenlet."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from typing import Any, TypeVar

from django.utils.module_loading import import_string

from django_eventstream.deadlines import NoThreadError

Result = TypeVar("Result")

PATIENCE_SECONDS = 5.0
"""How long the caller waits, unless it says so."""


def in_thread(function: Callable[[], Result], seconds: float = PATIENCE_SECONDS) -> Result:
    """Call a function where no request has left anything behind; raises what it raises.

    TimeoutError if it takes longer, and `NoThreadError` where none can begin: the system has no
    more, or Python is ending.
    """
    done: Future[Result] = Future()

    def run() -> None:
        try:
            done.set_result(function())
        except Exception as error:
            done.set_exception(error)

    # Python does not wait for it when it ends, as it does for those of executors.
    thread = threading.Thread(target=run, name="eventstream-alone", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThreadError(str(error)) from error
    try:
        return done.result(seconds)
    except FutureTimeoutError:  # another one than Python's own before 3.11
        if done.done():
            # It is what the function raised.
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from None


@contextmanager
def native_thread() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Yield what calls a function in a thread of the operating system, and waits for it.

    gevent and eventlet make greenlets of threads, all of them in one thread of the system. An event
    loop in one of these counts as running in each, and Django lets none of them use the database.
    With gevent it is the same thread for all calls. Where threads are real, it is the caller's own.
    """
    if _is_patched("gevent.monkey", "is_module_patched", "threading"):
        pool = import_string("gevent.threadpool.ThreadPool")(1)
        try:
            yield lambda function: _result_of(*pool.apply(_attempt, (function,)))
        finally:
            pool.kill()
    elif _is_patched("eventlet.patcher", "is_monkey_patched", "thread"):
        yield import_string("eventlet.tpool.execute")
    else:
        yield _call


def _is_patched(module: str, question: str, name: str) -> bool:
    patcher = sys.modules.get(module)
    return patcher is not None and getattr(patcher, question)(name)


def _call(function: Callable[[], Result]) -> Result:
    return function()


def _attempt(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Return what it raises, too: gevent would write a traceback to stderr each time."""
    try:
        return function(), None
    except BaseException as error:
        return None, error


def _result_of(result: Any, error: BaseException | None) -> Any:
    if error is None:
        return result
    try:
        raise error
    finally:
        # Otherwise the error has a frame that has the error.
        del error
