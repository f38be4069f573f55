"""Calling a function in a thread in which no request has left anything behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

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
