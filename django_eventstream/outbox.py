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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_eventstream import retention, transactions
from django_eventstream.backends import get_publishers, get_storage
from django_eventstream.events import Event
from django_eventstream.exceptions import (
    EventStreamError,
    PublishError,
    StorageUnavailableError,
)
from django_eventstream.storage.base import LogPosition, Storage

logger = logging.getLogger(__name__)

LOOK_SECONDS = 60
"""How often a process that sends looks for what others left behind. Hubs look at each tick; this
is for a project that has none."""

MOST_OVERDUE = 1_000
"""Channels that a thread remembers to have sent to in vain; others wait for whoever looks next."""


class _Sending(transactions.Step):
    """Sends events after the commit."""

    def __init__(self, events: Sequence[Event], wait: bool) -> None:
        super().__init__()
        self.events = events
        self.wait = wait
        """Whether the sender waits for the publishing."""

    def fail(self, error: EventStreamError) -> None:
        self.error = self.error or error


class _Number(_Sending):
    """Numbers and announces what was staged."""

    @classmethod
    def take(cls, steps: Sequence[_Sending]) -> None:
        storage = _log()
        senders: dict[str, list[_Sending]] = {}
        for step in steps:
            for channel in {event.channel: None for event in step.events}:
                senders.setdefault(channel, []).append(step)
        for channel, those in senders.items():
            waiting = [step for step in those if step.wait]
            try:
                _number(storage, channel, wait=bool(waiting))
            except EventStreamError as error:
                for step in waiting:
                    step.fail(error)


class _Send(_Sending):
    """Stores and announces what is not in the log yet, all of it in one step."""

    @classmethod
    def take(cls, steps: Sequence[_Sending]) -> None:
        with _telling_who_waits(steps) as wait:
            _send_now([event for step in steps for event in step.events], wait=wait)


class _Publish(_Sending):
    """Announces what is not stored."""

    @classmethod
    def take(cls, steps: Sequence[_Sending]) -> None:
        with _telling_who_waits(steps) as wait:
            publish([event for step in steps for event in step.events], wait=wait)


class _Overdue(threading.local):
    """Channels with events of this thread that could not be numbered when it was time.

    They come before anything sent now.
    """

    def __init__(self) -> None:
        self.channels: set[str] = set()


class _Look:
    due = 0.0


_overdue = _Overdue()


def send(stored: Sequence[Event], passing: Sequence[Event], *, wait: bool) -> list[Event]:
    """Send events that are stored, and events that are only announced; return the former.

    If the former cannot be stored, none is sent. If one cannot be published, all others are.
    """
    failures: list[PublishError] = []
    sent: list[Event] = []
    try:
        sent = send_reliable(stored, wait=wait) if stored else []
    except PublishError as error:
        failures.append(error)
    if passing:
        send_unreliable(passing, wait=wait)
    if failures:
        raise failures[0]
    return sent


def send_reliable(events: Sequence[Event], *, wait: bool) -> list[Event]:
    """Store and announce events; in a transaction, once it commits.

    Where the log is in the database of the caller's transaction, they become part of it. Where it
    is elsewhere, they wait for all transactions that the caller has open. Returns the events, with
    their ids where they have them already. Raises `StorageUnavailableError` if they were not
    stored, and with `wait` `PublishError` if a proxy or broker was not reached.
    """
    if not _log().is_in_transaction() and (opened := transactions.open_connections()):
        _Send(events, wait).follow(opened)
        return list(events)
    return _send_now(events, wait=wait)


def send_unreliable(events: Sequence[Event], *, wait: bool) -> None:
    """Announce events that are not stored; in transactions, once all have committed."""
    if opened := transactions.open_connections():
        _Publish(events, wait).follow(opened)
    else:
        publish(events, wait=wait)


def send_after_each(event: Event) -> None:
    """Send an event after the commit of each transaction that is open, and now if none is.

    Of something that was changed in one of them, nobody knows in which: for this event twice is
    harmless, too early is too late, and never is worse.
    """
    storage = get_storage()
    kind = _Publish if storage is None else _Send
    is_staged = storage is not None and storage.is_in_transaction()
    opened = transactions.open_connections()
    if is_staged or not opened:
        kind.take([kind([event], False)])
    for connection in opened:
        if not is_staged or connection.alias != _log().alias:
            kind([event], False).follow([connection])


def relay(channels: Iterable[str]) -> int:
    """Number and announce what was committed but left behind; return how many events.

    Raises `StorageUnavailableError`. Safe to call at any time, from any process.
    """
    storage = get_storage()
    if storage is None or not storage.supports_outbox:
        return 0
    if _commits_by_hand(storage):
        # Ids that are announced must not wait for a commit that may never come.
        return transactions.call_apart(partial(relay, channels))
    count = 0
    for channel in channels:
        if events := storage.number(channel):
            count += len(events)
            publish(events)
    return count


def look(storage: Storage, channels: Sequence[str]) -> LogPosition:
    """Ask where the log stands, once what was left behind in it has its numbers.

    Within `atomic()` it only asks.
    """
    position = storage.get_position(channels)
    # Rolled back with the caller's transaction, ids would be announced first and given again then;
    # and until it ends nobody else could send there.
    is_for_others = storage.is_in_transaction() and not _commits_by_hand(storage)
    if not position.unnumbered or is_for_others:
        return position
    relay(sorted(position.unnumbered))
    return storage.get_position(channels)


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


def _log() -> Storage:
    storage = get_storage()
    assert storage is not None, "only called for channels that are stored"
    return storage


def _connection(storage: Storage) -> BaseDatabaseWrapper:
    return connections[storage.alias or DEFAULT_DB_ALIAS]


def _send_now(events: Sequence[Event], *, wait: bool) -> list[Event]:
    storage = _log()
    if storage.is_in_transaction():
        return _stage(storage, events, wait)
    return _append(storage, events, wait)


def _stage(storage: Storage, events: Sequence[Event], wait: bool) -> list[Event]:
    storage.stage(events)
    connection = _connection(storage)
    # Nobody tells us of a commit made by hand, with autocommit off: such events are found by the
    # next look at the outbox.
    if transactions.tells_of_commit(connection):
        _Number(events, wait).follow([connection])
    return list(events)


def _append(storage: Storage, events: Sequence[Event], wait: bool) -> list[Event]:
    if storage.supports_outbox and _overdue.channels:
        for channel in _overdue.channels & {event.channel for event in events}:
            _number(storage, channel, wait=False)
    numbered = storage.append(events)
    _announce(numbered, wait)
    return numbered


def _number(storage: Storage, channel: str, *, wait: bool) -> None:
    try:
        numbered = storage.number(channel)
    except StorageUnavailableError as error:
        if len(_overdue.channels) < MOST_OVERDUE:
            _overdue.channels.add(channel)
        if wait:
            text = f"events on {channel!r} are stored, and wait for the next relay: {error}"
            raise StorageUnavailableError(text, may_be_stored=True) from error
        logger.exception("Events on %r are committed and will be sent by the next relay", channel)
        return
    _overdue.channels.discard(channel)
    if numbered:
        _announce(numbered, wait)


@contextmanager
def _telling_who_waits(steps: Sequence[_Sending]) -> Iterator[bool]:
    """Yield whether a step waits for the publishing; those that do are told of its failure."""
    waiting = [step for step in steps if step.wait]
    try:
        yield bool(waiting)
    except PublishError as error:
        for step in waiting:
            step.fail(error)


def _commits_by_hand(storage: Storage) -> bool:
    """Say whether autocommit is off, so that it is for the caller to commit."""
    return storage.is_in_transaction() and not _connection(storage).in_atomic_block


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
