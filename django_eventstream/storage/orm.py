"""The log in the project's own database, through Django's ORM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.util import find_spec

from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from django_eventstream import models
from django_eventstream.conf import settings
from django_eventstream.events import Event
from django_eventstream.exceptions import HistoryGoneError
from django_eventstream.storage import trimming, watching
from django_eventstream.storage.base import (
    WATCH,
    Change,
    Lease,
    Limits,
    LogPosition,
    Sweep,
    WatchPosition,
)
from django_eventstream.storage.clock import read_now
from django_eventstream.storage.errors import translated_errors, translated_errors_of_writing
from django_eventstream.storage.identity import identify
from django_eventstream.storage.legacy import LegacyMethods
from django_eventstream.storage.numbering import own_transaction
from django_eventstream.storage.reading import (
    read_last_id,
    read_oldest_id,
    read_page,
    read_positions,
)
from django_eventstream.storage.writers import make_writer

EPOCH_NAME = ""
"""The counter row that has the epoch; no channel has an empty name."""

POSTGRES_FEED = "django_eventstream.feeds.postgres.PostgresFeed"

NAMES_PER_QUESTION = 10_000
"""Channels of one SELECT; SQLite takes 32,766 parameters."""


class DjangoModelStorage(LegacyMethods):
    """Events in the tables `django_eventstream_event` and `django_eventstream_eventcounter`.

    Works on SQLite (3.35 or newer), PostgreSQL, MySQL and MariaDB. The database is the one
    that the project's routers choose for `django_eventstream.models.Event`.
    """

    supports_outbox = True
    supports_watch = True

    def __init__(self, using: str | None = None) -> None:
        self._using = using

    @property
    def feed(self) -> str | None:
        """See `Storage.feed`. PostgreSQL notifies, if psycopg 3 is there to listen."""
        is_listening = settings.POSTGRES_NOTIFY and find_spec("psycopg") is not None
        vendor = self._connection.vendor
        return POSTGRES_FEED if vendor == "postgresql" and is_listening else None

    def log_id(self) -> str:
        """See `Storage.log_id()`. Asks the database once."""
        return identify(self._connection)

    def append(self, events: Sequence[Event]) -> list[Event]:
        """See `Storage.append()`. One event costs two statements, one on PostgreSQL."""
        connection = self._connection
        with translated_errors_of_writing(connection):
            return make_writer(connection).append(events)

    def read(
        self, channel: str, after: int, limit: int, max_bytes: int | None = None
    ) -> list[Event]:
        """See `Storage.read()`. One statement, one more where nothing is found."""
        after = max(after, 0)
        connection = self._connection
        with translated_errors(connection):
            found = read_page(connection, channel, after, limit, max_bytes)
            if not found and (last := read_last_id(connection, channel) or 0) > after:
                # Numbered between the two questions, or gone: only a third look can tell.
                found = read_page(connection, channel, after, limit, max_bytes)
                if not found:
                    oldest = read_oldest_id(connection, channel, after) or last + 1
                    raise HistoryGoneError(channel, oldest=oldest)
        if not found or found[-1].id == after + len(found):
            return found
        if found[0].id != after + 1:
            raise HistoryGoneError(channel, oldest=found[0].id or 0)
        # Rows that somebody deleted by hand: what is before the hole is good.
        return [event for expected, event in enumerate(found, after + 1) if event.id == expected]

    def get_position(self, channels: Iterable[str]) -> LogPosition:
        """See `Storage.get_position()`. One statement for each 10,000 channels."""
        names = list(dict.fromkeys(channels))
        ids = dict.fromkeys(names, 0)
        unnumbered: set[str] = set()
        epoch = 0
        connection = self._connection
        with translated_errors(connection):
            for start in range(0, len(names) or 1, NAMES_PER_QUESTION):
                asked = [*names[start : start + NAMES_PER_QUESTION], EPOCH_NAME]
                for name, value in read_positions(connection, asked):
                    if value is None:
                        unnumbered.add(name)
                    elif name == EPOCH_NAME:
                        epoch = value
                    else:
                        ids[name] = value
        return LogPosition(ids, epoch, frozenset(unnumbered))

    def trim(self, channel: str, before: datetime | None, keep: int | None, limit: int) -> int:
        """See `Storage.trim()`."""
        with translated_errors(self._connection):
            return trimming.trim_channel(self._connection, channel, before, keep, limit)

    def sweep(self, position: int, limit: int, limits: Limits) -> Sweep:
        """See `Storage.sweep()`. Three statements; one if nothing has expired."""
        connection = self._connection
        with translated_errors(connection):
            return trimming.sweep(connection, position, limit, limits)

    def take_lease(self, holder: str, seconds: float, name: str = WATCH) -> Lease:
        """See `Storage.take_lease()`. One statement while somebody else has it."""
        with translated_errors(self._connection):
            return watching.take_lease(self._connection, name, holder, seconds)

    def renew_lease(
        self, holder: str, seconds: float, position: WatchPosition, name: str = WATCH
    ) -> bool:
        """See `Storage.renew_lease()`. One statement."""
        with translated_errors(self._connection):
            return watching.renew_lease(self._connection, name, holder, seconds, position)

    def changed_since(
        self, position: WatchPosition, look_back: float, silence: float, limit: int
    ) -> tuple[list[Change], WatchPosition]:
        """See `Storage.changed_since()`. One statement."""
        with translated_errors(self._connection):
            return watching.changed_since(self._connection, position, look_back, silence, limit)

    def now(self) -> datetime:
        """See `Storage.now()`. One statement: the clock is the database's."""
        with translated_errors(self._connection):
            return read_now(self._connection)

    def is_in_transaction(self) -> bool:
        """See `Storage.is_in_transaction()`."""
        connection = self._connection
        with translated_errors(self._connection):
            return connection.in_atomic_block or not connection.get_autocommit()

    def stage(self, events: Sequence[Event]) -> None:
        """See `Storage.stage()`. One statement; rolled back with the caller's transaction."""
        connection = self._connection
        with translated_errors(connection):
            make_writer(connection).stage(events)

    def number(self, channel: str) -> list[Event]:
        """See `Storage.number()`. A short transaction under the channel's lock."""
        connection = self._connection
        with translated_errors(connection):
            return make_writer(connection).number(channel)

    def begin_epoch(self) -> int:
        """Start a new life of the log, after its database was restored from a backup.

        Every cursor handed out before is answered with `stream-reset`. The number is the time
        in seconds, so that two restores of one backup do not give the same.
        """
        connection = self._connection
        alias = connection.alias
        now = int(timezone.now().timestamp())
        with translated_errors_of_writing(connection), own_transaction(connection):
            row, _ = models.EventCounter.objects.using(alias).get_or_create(name=EPOCH_NAME)
            row.value = max(now, row.value + 1)
            row.save(using=alias)
        return row.value

    def get_channels(self) -> list[str]:
        """See `Storage.get_channels()`."""
        connection = self._connection
        counters = models.EventCounter.objects.using(connection.alias).exclude(name=EPOCH_NAME)
        with translated_errors(connection):
            return list(counters.order_by("name").values_list("name", flat=True))

    @property
    def alias(self) -> str:
        """See `Storage.alias`."""
        # Reads come from where is written: a replica may be behind the hints.
        return self._using or router.db_for_write(models.Event)

    @property
    def _connection(self) -> BaseDatabaseWrapper:
        return connections[self.alias]
