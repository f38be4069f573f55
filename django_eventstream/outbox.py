"""From the caller's transaction to the holders of connections.

Inside a transaction an event is only staged: the counter, which senders share, is locked in a
short transaction of its own after the commit. Rolled back means never sent; committed means
sent, even if the process dies before the next instruction, since whoever looks next numbers
what was left behind.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from functools import partial

from django.db import transaction

from django_eventstream import retention
from django_eventstream.backends import get_publishers, get_storage
from django_eventstream.events import Event
from django_eventstream.exceptions import PublishError, StorageUnavailableError
from django_eventstream.storage.base import Storage

logger = logging.getLogger(__name__)

_thread = threading.local()


def send_reliable(events: Sequence[Event], *, wait: bool) -> list[Event]:
    """Store and announce events; in a transaction, once it commits.

    Returns the events, with their ids where they have them already. Raises
    `StorageUnavailableError` if nothing was stored, and with `wait` `PublishError` if a proxy
    or broker was not reached.
    """
    storage = get_storage()
    assert storage is not None, "only called for channels that are stored"  # noqa: S101
    if not storage.is_in_transaction():
        return _append(storage, events, wait)
    if not storage.supports_outbox:
        storage.on_commit(partial(_append, storage, events, wait))
        return list(events)
    storage.stage(events)
    waiting = _waiting_channels()
    for channel in {event.channel: None for event in events}:
        waiting.add(channel)
        storage.on_commit(partial(_after_commit, channel, wait))
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


def relay_left_behind() -> int:
    """Find every channel with events left behind, and relay them; return how many events."""
    storage = get_storage()
    return 0 if storage is None else relay(storage.get_position(()).unnumbered)


def publish(events: Sequence[Event], *, wait: bool = False) -> None:
    """Tell all holders of connections; with `wait`, raise `PublishError` if one was not told."""
    failures: list[PublishError] = []
    for publisher in get_publishers():
        try:
            publisher.publish(events, wait=wait)
        except PublishError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _append(storage: Storage, events: Sequence[Event], wait: bool) -> list[Event]:
    numbered = storage.append(events)
    publish(numbered, wait=wait)
    retention.after_send(numbered)
    return numbered


def _after_commit(channel: str, wait: bool) -> None:
    # The first callback for a channel numbers all that the transaction sent there. A mark that
    # a rolled back savepoint left behind costs one look at an empty outbox, nothing else.
    waiting = _waiting_channels()
    if channel not in waiting:
        return
    waiting.discard(channel)
    storage = get_storage()
    if storage is None:
        return
    try:
        numbered = storage.number(channel)
    except StorageUnavailableError:
        if wait:
            raise
        logger.exception("Events on %r are committed and will be sent by the next relay", channel)
        return
    if numbered:
        publish(numbered, wait=wait)
        retention.after_send(numbered)


def _waiting_channels() -> set[str]:
    waiting: set[str] | None = getattr(_thread, "waiting", None)
    if waiting is None:
        waiting = _thread.waiting = set()
    return waiting
