"""The hub of the running event loop, wired from the settings when it is first needed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from weakref import WeakKeyDictionary

from django_eventstream.backends import get_storage, make_feeds
from django_eventstream.conf import settings
from django_eventstream.hub.hub import Hub, HubOptions
from django_eventstream.hub.log import LogReader
from django_eventstream.hub.shutdown import drain_on_signals

_lock = threading.Lock()
_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def get_hub() -> Hub:
    """Return the running event loop's own hub."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _make_hub()
        with _lock:
            _hubs[loop] = hub
        drain_on_signals(hub)
    return hub


def tell_hubs(function: Callable[[Hub], None]) -> None:
    """Call `function(hub)` for every hub of this process, each in its own thread; do not wait."""
    with _lock:
        hubs = list(_hubs.values())
    for hub in hubs:
        hub.call_threadsafe(function)


def _make_hub() -> Hub:
    storage = get_storage()
    return Hub(
        None if storage is None else LogReader(storage),
        HubOptions(
            poll_seconds=settings.POLL_SECONDS,
            keep_alive_seconds=settings.KEEP_ALIVE_SECONDS,
            window_bytes=settings.WINDOW_BYTES,
            backlog_bytes=settings.BACKLOG_BYTES,
        ),
        make_feeds(),
    )
