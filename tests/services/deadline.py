"""Waiting for something outside this process: ask until it is so, never just sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAUSE = 0.01

HEALTHY = 45.0
"""Seconds for what comes soon where all is well, on a machine that is busy with other work, too.
Less than the minute after which the product helps itself in many places."""

AT_ONCE = 8.0
"""Seconds for what must not wait until the product finds out by itself, after ten or more."""

STOPPING = 25.0
"""Seconds for a server that was asked to stop: gunicorn kills what goes on for longer than 30."""


def wait_until(
    condition: Callable[[], T],
    timeout: float = HEALTHY,
    message: str | Callable[[], str] = "still not so",
) -> T:
    """The first true value of `condition()`; `TimeoutError(message)` when there is none in time."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            text = message() if callable(message) else message
            raise TimeoutError(f"after {timeout} s: {text}")
        time.sleep(PAUSE)
    return value


def wait_until_stable(measure: Callable[[], T]) -> T:
    """The measure once it has been the same ten times in a row."""
    last = [measure()]

    def is_stable() -> bool:
        last.append(measure())
        return last[-10:] == last[-1:] * 10

    wait_until(is_stable)
    return last[-1]
