"""Empty, migrated databases of this run's own, and what must be true of the log in them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from django.db import connection, connections
from django.db.models import Count, Max, Min

from django_eventstream.models import Event
from tests.services.databases import Database, server_database, sqlite_database
from tests.services.mariadb import MariaDB
from tests.services.postgres import Postgres
from tests.services.process import private_directory, remove_directory

SERVERS = {"postgres": Postgres, "mariadb": MariaDB}
TITLES = {
    "sqlite": "SQLite (WAL, synchronous=NORMAL)",
    "postgres": "PostgreSQL (fsync off)",
    "mariadb": "MariaDB (flushed once a second)",
}
TEN = "(" + " UNION ALL ".join(f"SELECT {digit} d" for digit in range(10)) + ")"


@contextmanager
def store(name: str) -> Iterator[Database]:
    """A `sqlite`, `postgres` or `mariadb` database, `default` in this process for the time."""
    with ExitStack() as stack:
        if name in SERVERS:
            database = server_database(stack.enter_context(SERVERS[name]()))
        else:
            directory = private_directory("bench")
            stack.callback(remove_directory, directory)
            database = sqlite_database(directory)
        database.migrate()
        stack.callback(forget, database.alias)
        with database.as_default():
            yield database


def forget(alias: str) -> None:
    """The next database of that kind is another one."""
    connections[alias].close()
    del connections[alias]


def new_channel() -> str:
    return f"bench-{secrets.token_hex(6)}"


def fill_with_a_million(channel: str, created: object) -> None:
    """Stores 1,000,000 events in one channel, as the database does it fastest."""
    table = Event._meta.db_table
    created = connection.ops.adapt_datetimefield_value(created)
    digits = ", ".join(f"{TEN} t{power}" for power in range(6))
    number = " + ".join(f"{10**power} * t{power}.d" for power in range(6))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (channel, type, data, eid, created)"
            f" SELECT %s, 'message', %s, n + 1, %s FROM (SELECT {number} n FROM {digits}) numbers"
            " ORDER BY n",
            [channel, f'"{"x" * 150}"', created],
        )
        cursor.execute(
            f"INSERT INTO {table}counter (name, value, updated) VALUES (%s, 1000000, %s)",
            [channel, created],
        )
        cursor.execute(f"ANALYZE {'TABLE ' * (connection.vendor == 'mysql')}{table}")


def assert_log(channel: str, last: int) -> None:
    """Every id from the oldest that is kept to `last` is there once."""
    kept = Event.objects.filter(channel=channel).aggregate(
        rows=Count("eid"), ids=Count("eid", distinct=True), first=Min("eid"), last=Max("eid")
    )
    rows, ids = kept["rows"], kept["ids"]
    assert kept["last"] == last, f"{channel} ends with {kept['last']}, not {last}"
    assert rows == ids == last - kept["first"] + 1, f"{channel} has gaps or doubles: {kept}"
