"""Which log this thread uses, and which one all streams are served from.

They are the same, unless the database or its schema depends on a request: hubs, relays and
commands have none. What is written elsewhere is read by no stream.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from django.core.exceptions import ImproperlyConfigured

from django_eventstream.backends import get_storage
from django_eventstream.conf import other_setting
from django_eventstream.deadlines import NoThreadError
from django_eventstream.events import Event
from django_eventstream.exceptions import IncompatibleSettings, StorageUnavailableError
from django_eventstream.storage.base import Storage
from django_eventstream.threads import in_thread

logger = logging.getLogger(__name__)


class _Home:
    log: str | None = None
    """The log of a thread without a request, as it was found to be last."""


def id_of(storage: Storage | None) -> str:
    """Return the id of the log that this thread reaches through a storage; empty without one."""
    return storage.log_id() if isinstance(storage, Storage) else ""


def require_home() -> str | None:
    """Return the id of the log that this thread uses; None while nobody knows.

    Raises `IncompatibleSettings` if it is another one than streams are served from.
    """
    try:
        found = _find()
        if found != _Home.log:
            _Home.log = in_thread(_find)
    except (StorageUnavailableError, TimeoutError, NoThreadError):
        return None
    if found != _Home.log:
        raise IncompatibleSettings(_problem())
    return found


def stamped(events: Sequence[Event]) -> list[Event]:
    """Return the events with the log that they are of, which is the one that this thread uses.

    Raises `IncompatibleSettings` if no stream is served from it.
    """
    log = require_home()
    return [replace(event, log=log) for event in events]


def _find() -> str:
    try:
        return id_of(get_storage())
    except (StorageUnavailableError, ImproperlyConfigured):
        raise
    except Exception as error:
        # A router of the project that needs a request.
        raise IncompatibleSettings(f"{_problem()}: {error!r}") from error


def _problem() -> str:
    routers = other_setting("DATABASE_ROUTERS")
    return (
        "The event log of this request or task is another one than that of the threads that serve "
        "streams, which have no request: no stream gets its events. Its database or schema must "
        f"not depend on a request (DATABASE_ROUTERS = {routers!r}; the app django_eventstream in "
        "TENANT_APPS). Keep one log for all, and put the tenant into the names of channels: see "
        "docs/howto/tenants.md"
    )
