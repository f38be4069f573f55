"""Storage classes that were written for django-eventstream 5, behind the port of today.

Such a class knows three methods, with one event at a time. What it cannot do, nobody can do for
it: it takes part in no transaction, so that an event sent in one is stored after the commit, and is
lost if the process dies in between; several events are not stored all or none; it does not keep who
skips an event; it removes old events itself or not at all; and whoever is behind the oldest event
that it has is told to start over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from django_eventstream.deprecation import deprecated
from django_eventstream.events import Event
from django_eventstream.exceptions import (
    EventStreamError,
    HistoryGoneError,
    StorageUnavailableError,
)
from django_eventstream.payloads import encode_payload
from django_eventstream.storage.base import LogPosition, Storage

METHODS = ("append_event", "get_events", "get_current_id")
"""What a class needs to be taken for one of the old kind."""

OBJECT_MARK = "\t \t"
"""Begins the text of data that was no text: white space, which means nothing to a JSON parser."""

REPLACEMENT = "a subclass of django_eventstream.storage.Storage can do all that it cannot"


class EventDoesNotExist(Exception):
    """An old storage class does not have the event after which it was asked to read."""

    def __init__(self, message: str, current_id: int) -> None:
        super().__init__(message)
        self.current_id = current_id
        """The channel's last id."""


class StorageBase:
    """What storage classes of django-eventstream 5 derive from. They go on working.

    A new one derives from `django_eventstream.storage.Storage`.
    """

    def append_event(self, channel: str, event_type: str, data: Any) -> Any:
        """Store an event, whose data is text, and return it with its id."""
        raise NotImplementedError

    def get_events(self, channel: str, last_id: int, limit: int = 100) -> Any:
        """Return the events after an id, or raise `EventDoesNotExist`."""
        raise NotImplementedError

    def get_current_id(self, channel: str) -> int:
        """Return the channel's last id, 0 if there is none."""
        raise NotImplementedError


class LegacyMethods(Storage):
    """A storage of today, with what code written for django-eventstream 5 calls on one."""

    @deprecated("use django_eventstream.send_event(), which tells those who listen as well")
    def append_event(self, channel: str, event_type: str, data: Any) -> Event:
        """Store an event, and tell nobody of it. Returns it with the data that was given.

        Streams send data that is no text as JSON.
        """
        text = data if isinstance(data, str) else OBJECT_MARK + encode_payload(data)
        return replace(self.append([Event(channel, event_type, text)])[0], data=data)

    @deprecated("use read()")
    def get_events(self, channel: str, last_id: int, limit: int = 100) -> list[Event]:
        """Return the events after an id, or raise `EventDoesNotExist`.

        Their data is what `append_event()` was given; of a sent event it is the text that was sent.
        """
        current = self.get_position([channel]).ids[channel]
        try:
            found = self.read(channel, int(last_id), limit)
        except HistoryGoneError as gone:
            raise EventDoesNotExist(str(gone), current) from gone
        if int(last_id) > current:
            raise EventDoesNotExist(f"channel {channel!r} has no event {last_id}", current)
        return [replace(event, data=_given(event.data)) for event in found]

    @deprecated("use get_position()")
    def get_current_id(self, channel: str) -> int:
        """Return the channel's last id, 0 if there is none."""
        return self.get_position([channel]).ids[channel]


class LegacyStorage(Storage):
    """The port, on top of an instance of an old class."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def append(self, events: Sequence[Event]) -> list[Event]:
        """See `Storage.append()`. One after the other: what fails keeps those before it."""
        numbered = []
        for event in events:
            with _translated_errors():
                stored = self.backend.append_event(event.channel, event.type, event.data)
                numbered.append(event.with_id(int(stored.id)))
        return numbered

    def read(
        self, channel: str, after: int, limit: int, max_bytes: int | None = None
    ) -> list[Event]:
        """See `Storage.read()`."""
        with _translated_errors():
            try:
                events = self._get_events(channel, after, limit)
            except EventDoesNotExist as gone:
                current = int(gone.current_id)
                if after >= current:
                    return []
                events = self._oldest_events(channel, after, limit)
                if not events:
                    raise HistoryGoneError(channel, oldest=current + 1) from gone
        if events and events[0].id != after + 1:
            raise HistoryGoneError(channel, oldest=events[0].id or 0)
        return list(_first(events, max_bytes))

    def _get_events(self, channel: str, after: int, limit: int) -> list[Event]:
        found = self.backend.get_events(channel, after, limit=limit)
        return [_to_event(channel, event) for event in found]

    def _oldest_events(self, channel: str, after: int, limit: int) -> list[Event]:
        """Return what is kept, where the event `after` is gone but the one behind it may not be.

        Old classes look for the very event, but for 0, which stands for the beginning.
        """
        try:
            kept = self._get_events(channel, 0, limit)
        except EventDoesNotExist:
            return []
        return [event for event in kept if (event.id or 0) > after]

    def get_position(self, channels: Iterable[str]) -> LogPosition:
        """See `Storage.get_position()`. One question for each channel."""
        with _translated_errors():
            return LogPosition({name: int(self.backend.get_current_id(name)) for name in channels})

    def trim(self, channel: str, before: datetime | None, keep: int | None, limit: int) -> int:
        """Remove nothing: the old class does that itself, or never."""
        return 0


def is_legacy(storage: object) -> bool:
    """Say whether an instance or a class is a storage of the old kind."""
    return all(callable(getattr(storage, name, None)) for name in METHODS)


def _given(text: str) -> Any:
    """Return what `append_event()` was given, from what it stored."""
    if text.startswith(OBJECT_MARK):
        with suppress(ValueError):  # a text of the project that begins so
            return json.loads(text)
    return text


def _to_event(channel: str, stored: Any) -> Event:
    data = stored.data if isinstance(stored.data, str) else encode_payload(stored.data)
    return Event(channel, stored.type, data, int(stored.id))


def _first(events: Sequence[Event], max_bytes: int | None) -> Iterator[Event]:
    """Yield events up to the first hole, and up to the one that fills the page."""
    size = 0
    for expected, event in enumerate(events, (events[0].id or 0) if events else 0):
        if event.id != expected or (max_bytes is not None and size >= max_bytes):
            return
        size += len(event.data)
        yield event


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise `StorageUnavailableError` for whatever an old class raises: it has no word for it."""
    try:
        yield
    except EventStreamError:
        raise
    except Exception as error:
        raise StorageUnavailableError(f"the event storage failed: {error!r}") from error
