"""Ending streams when the process is asked to stop.

Servers wait for open connections before they run any shutdown hook (ASGI lifespan included),
so without this an open stream would keep a process alive for as long as it is allowed to.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from weakref import ref

from django_eventstream.hub.hub import Hub

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def drain_on_signals(hub: Hub) -> None:
    """End the hub's streams on SIGTERM and SIGINT, before whatever handled the signal so far.

    Only the main thread may set handlers; a hub elsewhere ends with its process.
    """
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            _chain(number, hub)


def _chain(number: signal.Signals, hub: Hub) -> None:
    previous = signal.getsignal(number)
    hub_reference = ref(hub)

    def handle(received: int, frame: FrameType | None) -> None:
        target = hub_reference()
        if target is not None:
            target.call_threadsafe(Hub.drain)
        if callable(previous):
            previous(received, frame)
        elif previous != signal.SIG_IGN:
            signal.signal(received, signal.SIG_DFL)
            os.kill(os.getpid(), received)

    signal.signal(number, handle)
