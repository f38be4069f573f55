"""From the caller's transaction to the holders of connections.

Inside a transaction an event is only staged: the counter, which senders share, is locked in a
short transaction of its own after the commit. Rolled back means never sent; committed means
sent, even if the process dies before the next instruction, since whoever looks next numbers
what was left behind.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from weakref import WeakSet, ref

from django.db import transaction

from django_eventstream import retention
from django_eventstream.backends import get_publishers, get_storage
from django_eventstream.events import Event
from django_eventstream.exceptions import (
    EventStreamError,
    IncompatibleSettings,
    PublishError,
    StorageUnavailableError,
)
from django_eventstream.logs import stamped
from django_eventstream.storage.base import LogPosition, Storage

logger = logging.getLogger(__name__)

LOOK_SECONDS = 60
"""How often a process that sends looks for what others left behind. Hubs look at each tick; this
is for a project that has none."""


class _AfterCommit:
    """Numbers what a transaction sent to a channel, once it is committed."""

    def __init__(self, storage: Storage, channel: str, wait: bool) -> None:
        self.wait = wait
        """Whether the sender waits for the publishing."""
        self._storage = storage
        self._channel = channel

    def __call__(self) -> None:
        # The first callback for a channel numbers all that the transaction sent there. A mark
        # that a rolled back savepoint left behind costs one look at an empty outbox, no more.
        if self._channel not in _marks.staged:
            return
        try:
            wait = any(callback.wait for callback in _marks.staged[self._channel])
            _number(self._storage, self._channel, wait=wait)
        except EventStreamError:
            # Django calls nobody else after one that raises.
            for channel in list(_marks.staged):
                _number(self._storage, channel, wait=False)
            raise


class _AppendAfterCommit:
    """Appends what a transaction sent to a log that has no part in it, once it is committed."""

    def __init__(self, storage: Storage, events: Sequence[Event], wait: bool) -> None:
        self._storage = storage
        self._events = events
        self._wait = wait

    def __call__(self) -> None:
        # The first callback appends all that the transaction sent, in one step. Those of a rolled
        # back savepoint are gone, since Django has let go of them.
        together = [found for mark in _marks.unsent if (found := mark()) is not None]
        _marks.unsent.clear()
        if self in together:
            events = [event for each in together for event in each._events]
            _append(self._storage, events, any(each._wait for each in together))


class _Marks(threading.local):
    """What this thread knows of its own events."""

    def __init__(self) -> None:
        self.staged: dict[str, WeakSet[_AfterCommit]] = {}
        """Channels to number after the commit, and the callbacks of it that will do so: a
        transaction that is rolled back lets go of its own."""
        self.unsent: list[ref[_AppendAfterCommit]] = []
        """Those to call after the commit."""
        self.overdue: set[str] = set()
        """Channels that could not be numbered: their events come before anything sent now."""


class _Look:
    due = 0.0


class _Refusal:
    text = ""
    """What was logged last: once is enough."""


_marks = _Marks()


def send_reliable(events: Sequence[Event], *, wait: bool) -> list[Event]:
    """Store and announce events; in a transaction, once it commits.

    Returns the events, with their ids where they have them already. Raises
    `StorageUnavailableError` if nothing was stored, and with `wait` `PublishError` if a proxy
    or broker was not reached.
    """
    storage = get_storage()
    assert storage is not None, "only called for channels that are stored"
    if not storage.is_in_transaction():
        return _append(storage, events, wait)
    if not storage.supports_outbox:
        later = _AppendAfterCommit(storage, events, wait)
        _marks.unsent.append(ref(later))
        storage.on_commit(later)
        return list(events)
    storage.stage(events)
    for channel in dict.fromkeys(event.channel for event in events):
        callback = _AfterCommit(storage, channel, wait)
        _marks.staged.setdefault(channel, WeakSet()).add(callback)
        storage.on_commit(callback)
    return list(events)


def send_unreliable(events: Sequence[Event], *, wait: bool) -> None:
    """Announce events that are not stored; in a transaction, once it commits."""
    connection = transaction.get_connection()
    if connection.in_atomic_block:
        connection.on_commit(partial(publish, events, wait=wait))
    else:
        publish(events, wait=wait)


def relay(channels: Iterable[str]) -> int:
    """Number and announce what was committed but left behind; return how many events.

    Raises `StorageUnavailableError`. Safe to call at any time, from any process.
    """
    storage = get_storage()
    if storage is None or not storage.supports_outbox:
        return 0
    count = 0
    for channel in channels:
        if events := storage.number(channel):
            count += len(events)
            publish(events)
    return count


def look(storage: Storage, channels: Sequence[str]) -> LogPosition:
    """Ask where the log stands, once what was left behind in it has its numbers.

    Within a transaction it only asks.
    """
    position = storage.get_position(channels)
    # Rolled back with the caller's transaction, ids would be announced first and given again then;
    # and until it ends nobody else could send there.
    if not position.unnumbered or storage.is_in_transaction():
        return position
    relay(sorted(position.unnumbered))
    return storage.get_position(channels)


def relay_left_behind() -> int:
    """Find every channel with events left behind, and relay them; return how many events."""
    storage = get_storage()
    return 0 if storage is None else relay(storage.get_position(()).unnumbered)


def publish(events: Sequence[Event], *, wait: bool = False) -> None:
    """Tell all holders of connections; with `wait`, raise `PublishError` if one was not told."""
    try:
        events = stamped(events)
    except IncompatibleSettings as error:
        _refuse(error, wait)
        return
    failures: list[PublishError] = []
    for publisher in get_publishers():
        try:
            publisher.publish(events, wait=wait)
        except PublishError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _refuse(error: IncompatibleSettings, wait: bool) -> None:
    """Events of a log that nobody streams from are passed on to nobody."""
    if wait:
        raise PublishError(str(error)) from error
    if _Refusal.text != str(error):
        _Refusal.text = str(error)
        logger.error("%s", error)


def _append(storage: Storage, events: Sequence[Event], wait: bool) -> list[Event]:
    # This thread may have sent there in a transaction that is committed and not yet numbered:
    # we are called by an earlier callback of its commit, or numbering failed.
    if storage.supports_outbox and (waiting := _marks.staged.keys() | _marks.overdue):
        for channel in waiting & {event.channel for event in events}:
            _number(storage, channel, wait=False)
    numbered = storage.append(events)
    _announce(numbered, wait)
    return numbered


def _number(storage: Storage, channel: str, *, wait: bool) -> None:
    _marks.staged.pop(channel, None)
    try:
        numbered = storage.number(channel)
    except StorageUnavailableError:
        _marks.overdue.add(channel)
        if wait:
            raise
        logger.exception("Events on %r are committed and will be sent by the next relay", channel)
        return
    _marks.overdue.discard(channel)
    if numbered:
        _announce(numbered, wait)


def _announce(events: Sequence[Event], wait: bool) -> None:
    publish(events, wait=wait)
    retention.after_send(events)
    _look_after_others()


def _look_after_others() -> None:
    now = time.monotonic()
    if now < _Look.due:
        return
    _Look.due = now + LOOK_SECONDS
    try:
        relay_left_behind()
    except StorageUnavailableError:
        logger.warning("Could not look for events left behind", exc_info=True)
