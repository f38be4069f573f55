"""What goes wrong in the database, as the storage port says it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, ProgrammingError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import InterfaceError

from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.storage.numbering import is_uncommitted


@contextmanager
def translated_errors(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Raise `StorageUnavailableError` for whatever the database raises."""
    try:
        yield
    except (DatabaseError, InterfaceError) as error:
        _let_go_if_broken(connection)
        raise _unavailable(error) from error


@contextmanager
def translated_errors_of_writing(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """The same, where something is written and committed; say if it may be stored after all.

    If the connection is lost while the database commits, nobody knows whether it did. What it
    refuses it has not stored, and without a connection nothing was sent to it.
    """
    with translated_errors(connection):
        connection.ensure_connection()
    used = connection.connection
    try:
        yield
    except (DatabaseError, InterfaceError) as error:
        may_be_stored = not is_uncommitted(error) and _is_lost(connection, used)
        _let_go_if_broken(connection)
        raise _unavailable(error, may_be_stored=may_be_stored) from error


def _is_lost(connection: BaseDatabaseWrapper, used: Any) -> bool:
    # Django may have let go of it, and have another one by now.
    if connection.connection is not used:
        return True
    # In a transaction that failed, a PostgreSQL that is there refuses to be asked.
    if connection.vendor == "postgresql":
        return bool(used.closed)
    return not connection.is_usable()


def _unavailable(error: Exception, *, may_be_stored: bool = False) -> StorageUnavailableError:
    is_unmigrated = isinstance(error, ProgrammingError) or any(
        text in str(error) for text in ("no such", "has no column", "Unknown column")
    )
    hint = ' (was "migrate" run?)' if is_unmigrated else ""
    if may_be_stored:
        hint = "; it may have been stored: the connection was lost while it was being written"
    text = f"the event log cannot be used: {str(error).strip()}{hint}"
    return StorageUnavailableError(text, may_be_stored=may_be_stored)


def _let_go_if_broken(connection: BaseDatabaseWrapper) -> None:
    """Let the next use connect again: outside of requests Django does not look after it."""
    if connection.connection is not None and connection.autocommit:
        connection.close_if_unusable_or_obsolete()
