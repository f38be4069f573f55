"""Checks of the database that keeps the log. Only the one with `--database` asks it."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from django.core.checks import CheckMessage, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.utils.module_loading import import_string

from django_eventstream.checks.messages import TAG, error, is_command, warning
from django_eventstream.conf import PREFIX, settings
from django_eventstream.models import Event, EventCounter
from django_eventstream.storage.orm import DjangoModelStorage

OLDEST_SQLITE = (3, 35)
"""The first with RETURNING."""

MEMORY_STORAGE = "django_eventstream.storage.MemoryStorage"

VENDORS = ("sqlite", "postgresql", "mysql")


@register(TAG)
def check_database(**kwargs: Any) -> Iterator[CheckMessage]:
    """E015, E016, W017: a database that cannot keep the log, or not tell of news."""
    connection = _log_connection()
    if connection is None:
        return
    if connection.vendor not in VENDORS:
        has_none = connection.settings_dict["ENGINE"] == "django.db.backends.dummy"
        yield error(
            "eventstream.E015",
            "The project has no database for the event log."
            if has_none
            else f"The event log does not work on {connection.display_name}.",
            "Route the models of django_eventstream to SQLite, PostgreSQL, MySQL or MariaDB, "
            f"or set {PREFIX}STORAGE_CLASS to None: then nothing is stored.",
        )
    elif connection.vendor == "sqlite" and sqlite3.sqlite_version_info < OLDEST_SQLITE:
        yield error(
            "eventstream.E016",
            f"The event log needs SQLite 3.35 or newer; this is {sqlite3.sqlite_version}.",
            "Use a newer SQLite, or another database.",
        )
    elif (
        connection.vendor == "postgresql" and settings.POSTGRES_NOTIFY and not find_spec("psycopg")
    ):
        yield warning(
            "eventstream.W017",
            "Without psycopg 3 nothing can listen to PostgreSQL's notifications: events of other "
            f"processes arrive {settings.POLL_SECONDS} s late.",
            f"Install psycopg (version 3), or set {PREFIX}POSTGRES_NOTIFY to False.",
        )


@register(TAG)
def check_autocommit(**kwargs: Any) -> Iterator[CheckMessage]:
    """W026: a database whose transactions end without a word."""
    log = _log_connection()
    for alias in connections:
        if connections.settings[alias]["AUTOCOMMIT"]:
            continue
        if log is not None and log.alias == alias:
            consequence = (
                "an event waits, committed and without a number, until a process that holds "
                "streams, or eventstream_relay, looks for it"
            )
        else:
            consequence = (
                "an event that is sent in one of them is not part of it: it is sent at once, and "
                "stays if it is rolled back"
            )
        yield warning(
            "eventstream.W026",
            f"AUTOCOMMIT is False in DATABASES[{alias!r}], so that Django tells nobody of the "
            f"commit of a transaction: {consequence}.",
            "Leave AUTOCOMMIT out, and use transaction.atomic().",
        )


@register(TAG, deploy=True)
def check_memory(**kwargs: Any) -> Iterator[CheckMessage]:
    """W025: a log that no other process has, and that ends with its own."""
    if settings.STORAGE_CLASS == MEMORY_STORAGE:
        yield warning(
            "eventstream.W025",
            "The event log is in the memory of each process: events do not reach streams of "
            "another one, and none outlives a restart.",
            f"Leave {PREFIX}STORAGE_CLASS out: then the log is in the project's database.",
        )


@register(TAG, deploy=True)
def check_sqlite_options(**kwargs: Any) -> Iterator[CheckMessage]:
    """W018: a SQLite that fails as soon as two transactions write."""
    connection = _log_connection()
    if connection is None or connection.vendor != "sqlite":
        return
    options = connection.settings_dict.get("OPTIONS", {})
    is_immediate = str(options.get("transaction_mode")).upper() == "IMMEDIATE"
    if not is_immediate or "wal" not in str(options.get("init_command")).lower():
        yield warning(
            "eventstream.W018",
            "With these OPTIONS of SQLite a transaction that reads and then sends an event fails "
            'with "database is locked" whenever another one does the same.',
            f'Set DATABASES[{connection.alias!r}]["OPTIONS"] = {{"transaction_mode": "IMMEDIATE", '
            '"init_command": "PRAGMA journal_mode=WAL", "timeout": 20}.',
        )


# Not under our own tag: Django 6.1 hands all databases to checks that are asked for by tag.
@register(Tags.database)
def check_tables(*, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """W019: tables that are missing or those of the predecessor. Asks the database."""
    connection = _log_connection()
    if connection is None or connection.alias not in (databases or ()):
        return []
    try:
        problem = _problem_of_tables(connection) if connection.vendor in VENDORS else None
    except DatabaseError as trouble:
        text = f"The database of the event log cannot be asked: {trouble}"
        return [warning("eventstream.W019", text.strip(), "Start it, or correct DATABASES.")]
    if problem is None:
        return []
    option = "" if connection.alias == "default" else f" --database {connection.alias}"
    return [warning("eventstream.W019", problem, f"Run `python manage.py migrate{option}`.")]


@register(Tags.database)
def check_isolation(*, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """W024: a PostgreSQL with another isolation than Django takes for granted. Asks it."""
    connection = _log_connection()
    if (
        connection is None
        or connection.alias not in (databases or ())
        or connection.vendor != "postgresql"
        or "isolation_level" in connection.settings_dict.get("OPTIONS", {})
    ):
        return []
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW default_transaction_isolation")
            [level] = cursor.fetchone()
    except DatabaseError:
        # W019 says so.
        return []
    if level == "read committed":
        return []
    text = (
        f"This PostgreSQL begins transactions as {level!r}, which Django does not know: of two "
        "that send to a channel at once, one fails."
    )
    hint = (
        "Say it in the settings, with a value of psycopg.IsolationLevel: "
        f'DATABASES[{connection.alias!r}]["OPTIONS"]["isolation_level"].'
    )
    return [warning("eventstream.W024", text, hint)]


def _problem_of_tables(connection: BaseDatabaseWrapper) -> str | None:
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
    # `migrate` asks before it makes them.
    if is_command("migrate") or not router.allow_migrate_model(connection.alias, Event):
        return None
    missing = {Event._meta.db_table, EventCounter._meta.db_table}.difference(tables)
    if missing:
        return f"The tables of the event log are missing: {', '.join(sorted(missing))}."
    loader = MigrationLoader(connection)
    needed = [name for app, name in loader.disk_migrations if app == Event._meta.app_label]
    done = {name for app, name in loader.applied_migrations if app == Event._meta.app_label}
    if pending := sorted(set(needed) - done):
        return f"The tables of the event log are of another version: {', '.join(pending)} missing."
    return None


def _log_connection() -> BaseDatabaseWrapper | None:
    """Return the connection of the log, unopened; None where the log is not in a database."""
    path = settings.STORAGE_CLASS
    try:
        storage = import_string(path) if isinstance(path, str) else None
        is_in_database = inspect.isclass(storage) and issubclass(storage, DjangoModelStorage)
        return connections[router.db_for_write(Event)] if is_in_database else None
    except (ImportError, ImproperlyConfigured):
        # Other checks, of ours and of Django, explain these.
        return None
