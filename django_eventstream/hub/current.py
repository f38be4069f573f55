"""The hub of the running event loop, wired from the settings when it is first needed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

from django_eventstream.backends import get_storage, make_feeds
from django_eventstream.conf import settings
from django_eventstream.hub.hub import Hub, HubOptions
from django_eventstream.hub.log import LogReader
from django_eventstream.hub.shutdown import drain_on_signals
from django_eventstream.processes import after_fork

# A signal handler takes it too, in the middle of whatever its thread does.
_lock = threading.RLock()
_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


_inherited: list[dict[asyncio.AbstractEventLoop, Hub]] = []
"""Of the parent process. The end of a loop in a child would close what both have open."""


def _begin() -> None:
    # The parent's loops do not run here; their hubs would only collect what is sent.
    global _lock
    _lock = threading.RLock()
    _inherited.append(_hubs.copy())
    _hubs.clear()


after_fork(_begin)


def get_hub() -> Hub:
    """Return the running event loop's own hub."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _make_hub()
        with _lock:
            _forget_closed_loops()
            _hubs[loop] = hub
        drain_on_signals(partial(tell_hubs, Hub.drain))
    return hub


def tell_hubs(function: Callable[[Hub], None]) -> int:
    """Call `function(hub)` for every hub of this process, each in its own thread; do not wait.

    Returns how many hubs there are.
    """
    with _lock:
        hubs = list(_hubs.values())
    for hub in hubs:
        hub.call_threadsafe(function)
    return len(hubs)


def _forget_closed_loops() -> None:
    # A hub knows its loop, so that neither goes by itself.
    for loop in [loop for loop in _hubs if loop.is_closed()]:
        del _hubs[loop]


def _make_hub() -> Hub:
    storage = get_storage()
    return Hub(
        None if storage is None else LogReader(storage),
        HubOptions(
            poll_seconds=settings.POLL_SECONDS,
            keep_alive_seconds=settings.KEEP_ALIVE_SECONDS,
            window_bytes=settings.WINDOW_BYTES,
            total_window_bytes=settings.TOTAL_WINDOW_BYTES,
            backlog_bytes=settings.BACKLOG_BYTES,
        ),
        make_feeds(),
    )
