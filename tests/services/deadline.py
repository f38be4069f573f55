"""Waiting for something outside this process: ask until it is so, never just sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAUSE = 0.01


def wait_until(
    condition: Callable[[], T],
    timeout: float = 10,
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
