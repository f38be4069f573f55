"""Sending: at once where no transaction is open, else after the commit of those that are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django_eventstream import outbox, transactions
from django_eventstream.backends import get_storage
from django_eventstream.events import Event
from django_eventstream.exceptions import EventStreamError, PublishError
from django_eventstream.storage.base import Storage


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
    storage = _log()
    if storage.is_in_transaction():
        return _stage(storage, events, wait)
    if opened := transactions.open_connections():
        _Send(events, wait).follow(opened)
        return list(events)
    return outbox.append(storage, events, wait)


def send_unreliable(events: Sequence[Event], *, wait: bool) -> None:
    """Announce events that are not stored; in transactions, once all have committed."""
    if opened := transactions.open_connections():
        _Publish(events, wait).follow(opened)
    else:
        outbox.publish(events, wait=wait)


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
                outbox.number(storage, channel, wait=bool(waiting))
            except EventStreamError as error:
                for step in waiting:
                    step.fail(error)


class _Send(_Sending):
    """Stores and announces what is not in the log yet, all of it in one step."""

    @classmethod
    def take(cls, steps: Sequence[_Sending]) -> None:
        with _telling_who_waits(steps) as wait:
            _send_now([event for step in steps for event in step.events], wait)


class _Publish(_Sending):
    """Announces what is not stored."""

    can_wait = True

    @classmethod
    def take(cls, steps: Sequence[_Sending]) -> None:
        with _telling_who_waits(steps) as wait:
            outbox.publish([event for step in steps for event in step.events], wait=wait)


def _log() -> Storage:
    storage = get_storage()
    assert storage is not None, "only called for channels that are stored"
    return storage


def _send_now(events: Sequence[Event], wait: bool) -> list[Event]:
    storage = _log()
    # Another transaction may be open still, or open again, and be that of the log.
    send_there = _stage if storage.is_in_transaction() else outbox.append
    return send_there(storage, events, wait)


def _stage(storage: Storage, events: Sequence[Event], wait: bool) -> list[Event]:
    storage.stage(events)
    connection = outbox.log_connection(storage)
    # Nobody tells us of a commit made by hand, with autocommit off: such events are found by the
    # next look at the outbox.
    if transactions.tells_of_commit(connection):
        _Number(events, wait).follow([connection])
    return list(events)


@contextmanager
def _telling_who_waits(steps: Sequence[_Sending]) -> Iterator[bool]:
    """Yield whether a step waits for the publishing; those that do are told of its failure."""
    waiting = [step for step in steps if step.wait]
    try:
        yield bool(waiting)
    except PublishError as error:
        for step in waiting:
            step.fail(error)
