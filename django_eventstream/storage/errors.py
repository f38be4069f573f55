"""What goes wrong in the database, as the storage port says it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DatabaseError, ProgrammingError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import InterfaceError

from django_eventstream.exceptions import StorageUnavailableError


@contextmanager
def translated_errors(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Raise `StorageUnavailableError` for whatever the database raises."""
    try:
        yield
    except (DatabaseError, InterfaceError) as error:
        _let_go_if_broken(connection)
        is_unmigrated = isinstance(error, ProgrammingError) or "no such" in str(error)
        hint = ' (was "migrate" run?)' if is_unmigrated else ""
        raise StorageUnavailableError(f"the event log cannot be used: {error}{hint}") from error


def _let_go_if_broken(connection: BaseDatabaseWrapper) -> None:
    """Let the next use connect again: outside of requests Django does not look after it."""
    if connection.connection is not None and connection.autocommit:
        connection.close_if_unusable_or_obsolete()
