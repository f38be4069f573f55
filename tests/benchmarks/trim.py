"""A million expired events are removed, a batch at a time, while sends go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from django.db import connection
from django.utils import timezone

from django_eventstream import send_event
from django_eventstream.models import Event
from tests.benchmarks.figures import note, show, spread
from tests.benchmarks.stores import (
    TEN,
    TITLES,
    assert_log,
    fill_with_a_million,
    new_channel,
    store,
)
from tests.services.databases import Database
from tests.services.process import private_directory, remove_directory
from tests.services.python import start_python

MILLION = 1_000_000
USERS = 100_000
DATA = {"text": "x" * 150}
BEFORE_SECONDS = 3.0
PAUSE_SECONDS = 0.001
"""Between two sends: enough of them to see the slowest, and the machine has time to trim."""

OF_ONE_CHANNEL = """
import sys
from django_eventstream import retention
from django_eventstream.backends import get_storage
for removed in retention.trim(get_storage(), sys.argv[1]):
    pass
"""
OF_ALL_CHANNELS = """
from django_eventstream import retention
from django_eventstream.backends import get_storage
swept = retention.sweep(get_storage(), 0)
while swept.has_more:
    swept = retention.sweep(get_storage(), swept.position)
"""


def main() -> None:
    for name in TITLES:
        with store(name) as database:
            channel, old = new_channel(), timezone.now() - timedelta(days=2)
            fill_with_a_million(channel, old)
            run(database, f"{TITLES[name]}, of one channel", OF_ONE_CHANNEL, channel)
        with store(name) as database:
            fill_users(old)
            run(database, f"{TITLES[name]}, of {USERS:,} channels", OF_ALL_CHANNELS)


def fill_users(created: object) -> None:
    """Stores ten events for each of very many channels, round robin."""
    table = Event._meta.db_table
    created = connection.ops.adapt_datetimefield_value(created)
    digits = ", ".join(f"{TEN} t{power}" for power in range(6))
    number = " + ".join(f"{10**power} * t{power}.d" for power in range(6))
    user = f"n %% {USERS}"
    name = f"CONCAT('user-', {user})" if connection.vendor == "mysql" else f"'user-' || ({user})"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (channel, type, data, eid, created)"
            f" SELECT {name}, 'message', %s, (n - {user}) / {USERS} + 1, %s"
            f" FROM (SELECT {number} n FROM {digits}) numbers ORDER BY n",
            [f'"{"x" * 150}"', created],
        )
        cursor.execute(
            f"INSERT INTO {table}counter (name, value, updated)"
            f" SELECT channel, MAX(eid), %s FROM {table} GROUP BY channel",
            [created],
        )
        cursor.execute(f"ANALYZE {'TABLE ' * (connection.vendor == 'mysql')}{table}")


def run(database: Database, title: str, code: str, *arguments: str) -> None:
    channel, directory = new_channel(), private_directory("bench")
    end = time.monotonic() + BEFORE_SECONDS
    before = send_while(lambda: time.monotonic() < end, channel)
    begin = time.monotonic()
    worker = start_python(code, *arguments, log=directory / "log", database=database.settings)
    meanwhile = send_while(lambda: worker.is_running, channel)
    seconds = time.monotonic() - begin
    assert worker.wait() == 0, worker.log_text()
    remove_directory(directory)
    assert_log(channel, len(before) + len(meanwhile))
    left = Event.objects.exclude(channel=channel).count()
    assert left == 0, f"{left} expired events are left"
    note(f"the slowest send while {MILLION:,} go, {title}", max(meanwhile) * 1e3, "ms")
    show(
        "trim",
        f"{title}: {MILLION:,} expired events removed in {seconds:.0f} s; sends without it: "
        f"{spread(before)}; {len(meanwhile):,} sends meanwhile: {spread(meanwhile)}",
    )


def send_while(condition: Callable[[], bool], channel: str) -> list[float]:
    """How long each send took."""
    durations = []
    while condition():
        begin = time.monotonic()
        send_event(channel, "message", DATA)
        durations.append(time.monotonic() - begin)
        time.sleep(PAUSE_SECONDS)
    return durations
