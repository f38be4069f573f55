"""Which log a database connection leads to.

Messages between processes name the log that they are of, so that no event crosses to another
one. Two ways of writing the address of a database may lead to the same log, by a pooler or a
socket, and one address to several, by schemas. So the database is asked: where it finds the table
of events, and when that was made, as Django's record of migrations says.
"""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from hashlib import sha256
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.models import Event
from django_eventstream.processes import after_fork
from django_eventstream.threads import PATIENCE_SECONDS, in_thread

PAUSE_SECONDS = 10.0
"""How long a database that did not answer is not asked again: each sender would wait for it."""

# Not `current_schema()`: a tenant's schema comes first, and the table may be in a shared one.
_SCHEMA = """
SELECT nspname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass(%s)"""

MIGRATIONS = MigrationRecorder.Migration._meta.db_table

_Key = tuple[Any, ...]
_found: dict[_Key, str] = {}
_silent_until: dict[_Key, float] = {}
_turns: dict[_Key, threading.Lock] = {}
after_fork(_turns.clear)


def identify(connection: BaseDatabaseWrapper) -> str:
    """Return what tells the log behind this connection from all others; empty if there is none.

    The database is asked once, through a connection and a thread of its own: the caller's may be
    in a transaction, counts its statements, or is for no async code. Callers that come meanwhile
    wait for that answer. Raises `StorageUnavailableError`.
    """
    key = _key_of(connection)
    if key in _found:
        return _found[key]
    turn = _turns.setdefault(key, threading.Lock())
    if not turn.acquire(timeout=PATIENCE_SECONDS):
        raise StorageUnavailableError("the event log cannot be identified now")
    try:
        return _found[key] if key in _found else _ask_anew(key, connection)
    finally:
        turn.release()


def _ask_anew(key: _Key, connection: BaseDatabaseWrapper) -> str:
    if time.monotonic() < _silent_until.get(key, 0):
        raise StorageUnavailableError("the event log cannot be identified now")
    try:
        found = in_thread(partial(_ask, connection))
    except Exception as error:
        _silent_until[key] = time.monotonic() + PAUSE_SECONDS
        raise StorageUnavailableError(f"the event log cannot be identified: {error}") from error
    if found:  # else its tables may be about to be made
        _found[key] = found
    return found


def _key_of(connection: BaseDatabaseWrapper) -> _Key:
    """Return all by which a connection may lead elsewhere, as far as it knows by itself."""
    given = connection.settings_dict
    place = [str(given.get(name)) for name in ("NAME", "HOST", "PORT", "USER")]
    options = given.get("OPTIONS") or {}
    place += [str(options.get(name)) for name in ("options", "service", "read_default_file")]
    # As django-tenants calls it.
    schema = getattr(connection, "schema_name", None)
    return (connection.vendor, *place, schema, _file_of(connection))


def _file_of(connection: BaseDatabaseWrapper) -> int:
    """Return the number of SQLite's file, which is the same whatever its path; 0 without one."""
    if connection.vendor != "sqlite":
        return 0
    try:
        return os.stat(connection.settings_dict["NAME"]).st_ino
    except (OSError, ValueError):
        return 0


def _ask(connection: BaseDatabaseWrapper) -> str:
    own: Any = type(connection)(_settings_of(connection), connection.alias)
    if schema := getattr(connection, "schema_name", None):
        own.set_schema(schema, getattr(connection, "include_public_schema", True))
    try:
        with own.cursor() as cursor:
            found = _PLACES.get(own.vendor, _place)(own, cursor)
    finally:
        own.close()
        if own.connection is not None:
            # Django keeps one to a SQLite in memory.
            own.connection.close()
    if found is None:
        return ""
    text = "\0".join(map(str, (own.vendor, *found)))
    return sha256(text.encode()).hexdigest()[:16]


def _settings_of(connection: BaseDatabaseWrapper) -> dict[str, Any]:
    # Not a deep copy: options may have what cannot be copied, such as an SSLContext.
    options = {**(connection.settings_dict.get("OPTIONS") or {})}
    # From a pool that the callers have emptied there would come none.
    options.pop("pool", None)
    return {**connection.settings_dict, "OPTIONS": options}


# A place is a database by its own name, the rest of what tells the table in it from others, and
# when it was made; None if there is no table.
_Place = tuple[object, ...] | None


def _postgres_place(connection: BaseDatabaseWrapper, cursor: Any) -> _Place:
    cursor.execute(_SCHEMA, [Event._meta.db_table])
    row = cursor.fetchone()
    if row is None:
        return None
    quoted = connection.ops.quote_name
    table = f"{quoted(row[0])}.{quoted(MIGRATIONS)}"
    # A role for the log alone may not read it; where there is none, the answer is NULL.
    readable = "has_table_privilege(to_regclass(%s), 'SELECT')"
    cursor.execute(f"SELECT current_database(), {readable}", [table])
    database, is_readable = cursor.fetchone()
    # A number: the text of a time depends on the time zone of the connection.
    made_at = "EXTRACT(EPOCH FROM MIN(applied))"
    return database, row[0], _made_at(cursor, table, made_at) if is_readable else ""


def _place(connection: BaseDatabaseWrapper, cursor: Any) -> _Place:
    tables = connection.introspection.table_names(cursor)
    if Event._meta.db_table not in tables:
        return None
    name: object = _file_of(connection)
    if connection.vendor == "mysql":
        cursor.execute("SELECT DATABASE()")
        [name] = cursor.fetchone()
    return name, _made_at(cursor, MIGRATIONS) if MIGRATIONS in tables else ""


_PLACES = {"postgresql": _postgres_place}


def _made_at(cursor: Any, table: str, column: str = "MIN(applied)") -> object:
    cursor.execute(
        f"SELECT {column} FROM {table} WHERE app = %s",
        [Event._meta.app_label],
    )
    return cursor.fetchone()[0]
