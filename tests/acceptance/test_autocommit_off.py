"""A project whose settings say `AUTOCOMMIT: False`: it commits by hand, and nobody tells us."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from django_eventstream.models import Event
from tests.services.databases import Database
from tests.services.deadline import wait_until
from tests.services.python import manage, run_python
from tests.sse_client import StreamClient, assert_sequence

SETTINGS = {"EVENTSTREAM_POLL_SECONDS": 0.2}

SEND_BY_HAND = """
import sys
from django.db import connection, transaction
from django_eventstream import send_event
assert not connection.get_autocommit()
channel, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for n in range(first, last + 1):
    assert send_event(channel, "message", {"channel": channel, "n": n}).id is None
    transaction.commit()
    send_event(channel, "message", "rolled back by hand")
    with transaction.atomic():
        send_event(channel, "message", "in atomic(), which is a savepoint here")
    transaction.rollback()
"""

OTHER_COMMANDS = """
from django.core.management import call_command
from django.db import connection
from django_eventstream import get_current_event_id
call_command("eventstream_epoch", yes=True)
call_command("eventstream_trim")
assert connection.get_autocommit() is False
print(get_current_event_id(["a"])[:5])
"""


def by_hand(database: Database) -> Database:
    """As other processes get it, whose settings turn autocommit off."""
    return replace(database, settings={**database.settings, "AUTOCOMMIT": False})


def test_streams_get_what_was_committed_by_hand_once_and_in_order(
    database, app_server, unique_channel
):
    """The hub read within a transaction that never ended, and so numbered nothing, nor saw news."""
    database = by_hand(database)
    server = app_server(database, "uvicorn+wrapper", settings=SETTINGS)
    with ExitStack() as stack:
        url = f"{server.url}/events/?channel={unique_channel}"
        client, other = (stack.enter_context(StreamClient(url)) for _ in range(2))
        client.wait_open()
        other.wait_open()
        for first, last in ((1, 3), (4, 5)):
            send_by_hand(database, unique_channel, first, last)
            client.wait_for(lambda client, last=last: client.has(unique_channel, last))
        other.wait_for(lambda client: client.has(unique_channel, 5))
        assert_sequence(client, unique_channel, range(1, 6))
        assert_sequence(other, unique_channel, range(1, 6))
        assert_no_transaction_stays_open(database)


def send_by_hand(database: Database, channel: str, first: int, last: int) -> None:
    run_python(SEND_BY_HAND, channel, str(first), str(last), database=database.settings)


def assert_no_transaction_stays_open(database: Database) -> None:
    if database.vendor != "postgresql":
        return
    wait_until(
        lambda: (
            database.server.sql(
                "SELECT count(*) = 0 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
                f" AND datname = '{database.settings['NAME']}'"
            )
            == "t"
        )
    )


def test_the_commands_commit_what_they_do(postgres_only, unique_channel):
    """The relay announced ids that were rolled back when it ended; the epoch was never begun."""
    database = by_hand(postgres_only)
    send_by_hand(database, unique_channel, 1, 2)
    process = {"database": database.settings}
    wait_until(lambda: "2 events" in manage("eventstream_relay", "--once", **process))
    rows = Event.objects.using(database.alias).order_by("id")
    assert list(rows.values_list("eid", flat=True)) == [1, 2]
    limits = {"EVENTSTREAM_RETENTION_COUNT": 1}
    assert run_python(OTHER_COMMANDS, settings=limits, **process).split()[-1] == "a:0,:"
    assert list(rows.values_list("eid", flat=True)) == [2]
