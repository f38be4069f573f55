"""Migrated databases on SQLite, PostgreSQL and MariaDB, each under a Django alias of its own."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.core.management.color import no_style
from django.db import DEFAULT_DB_ALIAS, connections

from tests.services.mariadb import MariaDB
from tests.services.open_files import open_files
from tests.services.postgres import Postgres
from tests.settings import sqlite

EVENT_TABLE = "django_eventstream_event"
# `migrate` fills these once, and nothing in a test changes them.
KEPT_TABLES = {"django_migrations", "django_content_type", "auth_permission"}


@dataclass(frozen=True)
class Database:
    """`alias` is known to `django.db.connections`; `settings` are for a process of its own."""

    alias: str
    settings: dict[str, Any]
    server: Postgres | MariaDB | None = None

    @property
    def vendor(self) -> str:
        """Django's name: `sqlite`, `postgresql` or `mysql`."""
        return connections[self.alias].vendor

    @property
    def env(self) -> dict[str, str]:
        """What makes it the default database of a process with `tests.settings`."""
        return {"EVENTSTREAM_TEST_DATABASE": json.dumps(self.settings)}

    def migrate(self) -> None:
        complete = connections.configure_settings({DEFAULT_DB_ALIAS: {}, self.alias: self.copy()})
        connections.settings[self.alias] = complete[self.alias]
        call_command("migrate", database=self.alias, verbosity=0)

    def empty(self) -> None:
        """Deletes every row that tests have made.

        On MariaDB a deleted row stays in the index for a moment, and whoever writes its key anew
        locks the row behind it as well. Ids are written anew only by tests: their table is made
        anew.
        """
        operations = connections[self.alias].ops
        truncated = {EVENT_TABLE} if self.vendor == "mysql" else set()
        for tables, anew in (self._tables - truncated, False), (truncated, True):
            statements = operations.sql_flush(no_style(), sorted(tables), reset_sequences=anew)
            operations.execute_sql_flush(statements)

    def open_connections(self) -> int:
        """How many connections any process holds to it, this one's included."""
        if self.server is not None:
            return self.server.connections(self.settings["NAME"])
        processes = Path("/proc").glob("[0-9]*")
        return sum(open_files(process).count(self.settings["NAME"]) for process in processes)

    @contextmanager
    def as_default(self) -> Iterator[Database]:
        """Makes it `default` in this thread, and in threads that start meanwhile."""
        settings, connection = connections.settings[DEFAULT_DB_ALIAS], connections[DEFAULT_DB_ALIAS]
        connections.settings[DEFAULT_DB_ALIAS] = connections.settings[self.alias]
        drop_default_connection()
        drop_asgiref_connection()
        try:
            yield self
        finally:
            drop_default_connection()
            drop_asgiref_connection()
            connections.settings[DEFAULT_DB_ALIAS] = settings
            connections[DEFAULT_DB_ALIAS] = connection

    def copy(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.settings))

    @cached_property
    def _tables(self) -> set[str]:
        names = connections[self.alias].introspection.django_table_names(only_existing=True)
        return set(names) - KEPT_TABLES


def sqlite_database(directory: Path) -> Database:
    return Database("sqlite", sqlite(str(directory / "test.sqlite3")))


def server_database(server: Postgres | MariaDB) -> Database:
    """A new database on a running server, with the server's name as its alias."""
    name = f"eventstream_{secrets.token_hex(4)}"
    server.create_database(name)
    return Database(server.name, server.django_settings(name), server)


def drop_default_connection() -> None:
    """Closes this thread's connection and forgets it; the next use makes one by the settings."""
    connections[DEFAULT_DB_ALIAS].close()
    del connections[DEFAULT_DB_ALIAS]


def drop_asgiref_connection() -> None:
    """The same in the one thread where asgiref runs the sync code of all event loops."""
    asyncio.run(sync_to_async(drop_default_connection, thread_sensitive=True)())
