"""Ending streams when the process is asked to stop.

Servers wait for open connections before they run any shutdown hook (ASGI lifespan included),
so without this an open stream would keep a process alive for as long as it is allowed to.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)

GRACE_SECONDS = 0.5
"""Time for streams to end before the server hears of the signal: daphne cancels all that goes on,
and with Django 6.1 the farewell of a stream, too. So it is where no server handles the signal: in a
worker of hypercorn's, when its whole process group is told to stop."""


def drain_on_signals(drain: Callable[[], int | None]) -> None:
    """Call `drain()` on SIGTERM and SIGINT, and then, a moment later, what handled it so far.

    It may say how many hubs it told: a process with none has no streams to end. Such is a child
    of one that has, which inherits its handlers.

    Only the main thread may set handlers; without them streams end with their process. Called
    again, it does something only if somebody has set a handler of their own meanwhile.
    """
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            previous = signal.getsignal(number)
            if not isinstance(previous, _Handler):
                signal.signal(number, _Handler(drain, previous))


class _Handler:
    def __init__(self, drain: Callable[[], int | None], previous: Any) -> None:
        self._drain = drain
        self._previous = previous

    def __call__(self, received: int, frame: FrameType | None) -> None:
        told = self._drain()
        if callable(self._previous):
            self._hand_on(received, frame, bool(told))
        elif self._previous != signal.SIG_IGN:
            # Nobody else looks after this process: it ends as it would have, a moment later.
            signal.signal(received, signal.SIG_DFL)
            if told == 0:
                os.kill(os.getpid(), received)
                return
            threading.Timer(GRACE_SECONDS, os.kill, (os.getpid(), received)).start()

    def _hand_on(self, received: int, frame: FrameType | None, has_streams: bool) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if has_streams and loop is not None:
            loop.call_soon_threadsafe(
                loop.call_later, GRACE_SECONDS, self._previous, received, None
            )
        else:
            self._previous(received, frame)
