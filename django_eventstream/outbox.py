"""From the log to the holders of connections, once an event is committed.

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
from functools import partial
from itertools import islice

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_eventstream import housekeeping, transactions
from django_eventstream.backends import get_publishers, get_storage
from django_eventstream.deadlines import NoThreadError
from django_eventstream.events import Event
from django_eventstream.exceptions import (
    HistoryGoneError,
    IncompatibleSettings,
    PublishError,
    StorageUnavailableError,
)
from django_eventstream.logs import stamped
from django_eventstream.publishers.base import Publisher
from django_eventstream.storage.base import (
    NUMBERED_BYTES,
    NUMBERED_EVENTS,
    LogPosition,
    Storage,
)

logger = logging.getLogger(__name__)

LOOK_SECONDS = 60
"""How often a process that sends looks for what others left behind. Hubs look at each tick; this
is for a project that has none."""

RELAY_SECONDS = 30.0
"""How long a thread of ours may take, for hubs and for callers that commit by hand: somebody who
numbers very many events of a channel has locked it for as long."""

RELAYED_PAGES = 10
"""Full pages of `Storage.number()` in one call of `relay()`, ..."""

RELAYED_CHANNELS = 1_000
"""... and channels. More are left to the next look, which is soon."""

BYTES_PER_CHARACTER = 12
"""At most, as data is stored: two escapes of JSON."""

BYTES_OF_QUOTES = 2
"""Around each."""

MOST_OVERDUE = 1_000
"""Channels that a thread remembers to have sent to in vain; others wait for whoever looks next."""


class _Overdue(threading.local):
    """Channels with events of this thread that could not be numbered when it was time.

    They come before anything sent now.
    """

    def __init__(self) -> None:
        self.channels: set[str] = set()


class _Look:
    due = 0.0


class _Refusal:
    text = ""
    """What was logged last: once is enough."""


_overdue = _Overdue()


def relay(channels: Iterable[str]) -> int:
    """Number and announce what was committed but left behind; return how many events.

    It does a bounded part of that: call it again while it returns any. Safe at any time, in any
    process. Raises `StorageUnavailableError`.
    """
    storage = get_storage()
    if storage is None or not storage.supports_outbox:
        return 0
    if _commits_by_hand(storage):
        # Ids that are announced must not wait for a commit that may never come.
        return _relay_apart(channels)
    count = 0
    for page in _left_behind(storage, channels):
        count += len(page)
        publish(page)
        # Where callers commit by hand, nobody else ever sends after a commit.
        housekeeping.housekeeper.after_send(page)
    return count


def _left_behind(storage: Storage, channels: Iterable[str]) -> Iterator[list[Event]]:
    full = 0
    for channel in islice(channels, RELAYED_CHANNELS):
        for page in _numbered(storage, channel):
            yield page
            full += _may_have_more(page)
            if full == RELAYED_PAGES:
                return


def _numbered(storage: Storage, channel: str) -> Iterator[list[Event]]:
    """Number what is committed on a channel, a page at a time; raise what the log raises."""
    while page := storage.number(channel):
        yield page
        if not _may_have_more(page):
            return


def _may_have_more(page: Sequence[Event]) -> bool:
    most = sum(BYTES_PER_CHARACTER * len(event.data) + BYTES_OF_QUOTES for event in page)
    return len(page) >= NUMBERED_EVENTS or most >= NUMBERED_BYTES


def _relay_apart(channels: Iterable[str]) -> int:
    try:
        return transactions.call_apart(partial(relay, channels), RELAY_SECONDS)
    except (TimeoutError, NoThreadError) as error:
        text = f"events that were left behind may not have been numbered: {error}"
        raise StorageUnavailableError(text, may_be_stored=True) from error


def look(storage: Storage, channels: Sequence[str]) -> LogPosition:
    """Ask where the log stands, once what was left behind in it has its numbers.

    Within `atomic()` it only asks.
    """
    position = storage.get_position(channels)
    housekeeping.housekeeper.stir()
    # Rolled back with the caller's transaction, ids would be announced first and given again then;
    # and until it ends nobody else could send there.
    is_for_others = storage.is_in_transaction() and not _commits_by_hand(storage)
    if not position.unnumbered or is_for_others:
        return position
    relay(sorted(position.unnumbered))
    return storage.get_position(channels)


def relay_left_behind() -> int:
    """Find every channel with events left behind, and relay as `relay()` does."""
    storage = get_storage()
    channels = () if storage is None else storage.get_position(()).unnumbered
    return relay(sorted(channels)) if channels else 0


def publish(events: Sequence[Event], *, wait: bool = False) -> None:
    """Tell all holders of connections; with `wait`, raise `PublishError` if one was not told."""
    try:
        events = stamped(events)
        publishers = get_publishers()
    except IncompatibleSettings as error:
        _refuse(error, wait)
        return
    failures = [_publish_by(publisher, events, wait) for publisher in publishers]
    if wait and (failed := [error for error in failures if error is not None]):
        raise failed[0]


def _publish_by(publisher: Publisher, events: Sequence[Event], wait: bool) -> PublishError | None:
    try:
        publisher.publish(events, wait=wait)
    except PublishError as error:
        return error
    except Exception as error:
        # The events are stored: whoever sent them would believe that they are not, and other
        # publishers would not hear of them.
        logger.exception("A publisher failed")
        return PublishError(f"{type(publisher).__name__} failed: {error}")
    return None


def _refuse(error: IncompatibleSettings, wait: bool) -> None:
    """Pass events on to nobody: no stream is served from their log, or a broker is misnamed."""
    if wait:
        raise PublishError(str(error)) from error
    if _Refusal.text != str(error):
        _Refusal.text = str(error)
        logger.error("%s", error)


def append(storage: Storage, events: Sequence[Event], wait: bool) -> list[Event]:
    """Store and announce events, which belong to no transaction of the caller; return them.

    Raises `StorageUnavailableError`, and with `wait` `PublishError`.
    """
    if storage.supports_outbox and _overdue.channels:
        for channel in _overdue.channels & {event.channel for event in events}:
            number(storage, channel, wait=False)
    numbered = storage.append(events)
    _announce(numbered, wait)
    return numbered


def number(storage: Storage, channel: str, *, wait: bool) -> None:
    """Number and announce what was staged on a channel and is committed.

    With `wait` it raises `StorageUnavailableError` and `PublishError`, else it logs the former.
    """
    is_announced = False
    failure: PublishError | None = None
    try:
        for page in _numbered(storage, channel):
            is_announced = True
            try:
                _announce(page, wait)
            except PublishError as error:
                failure = failure or error
    except StorageUnavailableError as error:
        if len(_overdue.channels) < MOST_OVERDUE:
            _overdue.channels.add(channel)
        if wait:
            text = f"events on {channel!r} are stored, and wait for the next relay: {error}"
            raise StorageUnavailableError(text, may_be_stored=True) from error
        logger.exception("Events on %r are committed and will be sent by the next relay", channel)
        return
    _overdue.channels.discard(channel)
    if failure is not None:
        raise failure
    if wait and not is_announced:
        _announce_again(storage, channel)


def _announce_again(storage: Storage, channel: str) -> None:
    """Publish the last event of a channel, and wait, where others numbered what we staged.

    They publish as well, but nobody waits for that. A holder that has seen all events drops this
    one, and a holder that misses one before it reads the log.
    """
    try:
        last_id = storage.get_position([channel]).ids[channel]
        last = storage.read(channel, last_id - 1, 1) if last_id else []
    except HistoryGoneError:
        return
    except StorageUnavailableError as error:
        text = f"events on {channel!r} are stored; whether they were published is unknown: {error}"
        raise PublishError(text) from error
    publish(last, wait=True)


def log_connection(storage: Storage) -> BaseDatabaseWrapper:
    """Return this thread's connection to the database that the log is in."""
    return connections[storage.alias or DEFAULT_DB_ALIAS]


def _commits_by_hand(storage: Storage) -> bool:
    """Say whether autocommit is off, so that it is for the caller to commit."""
    return storage.is_in_transaction() and not log_connection(storage).in_atomic_block


def _announce(events: Sequence[Event], wait: bool) -> None:
    try:
        publish(events, wait=wait)
    finally:
        # A proxy that refuses everything is no reason for the log to grow.
        housekeeping.housekeeper.after_send(events)
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
