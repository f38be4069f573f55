"""A project whose processes all reach PostgreSQL through PgBouncer in transaction mode."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from django_eventstream.storage import DjangoModelStorage
from django_eventstream.watch import Watch
from tests.acceptance.test_several_processes import clients_of
from tests.integration.test_feeds import configure
from tests.services.deadline import wait_until
from tests.services.python import run_python

if TYPE_CHECKING:
    from tests.services.databases import Database
    from tests.services.pgbouncer import PgBouncer

THREADS, ROUNDS = 8, 10
EACH = 4
"""How many events a round sends."""

WARNING = "notifications do not arrive, as behind PgBouncer"

SEND = """
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from django.db import connections, transaction
from django_eventstream import send_event, send_events

channel, threads, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def send_round(number):
    send_event(channel, "message", "alone")
    with suppress(ZeroDivisionError), transaction.atomic():
        send_event(channel, "message", "rolled back")
        1 / 0
    with transaction.atomic():
        send_event(channel, "message", "in a transaction")
        send_event(channel, "message", "and another")
    send_events([(channel, "message", "of many"), (channel + "-other", "message", "of many")])
    if number % 3 == 0:
        connections.close_all()

with ThreadPoolExecutor(threads) as pool:
    list(pool.map(send_round, range(threads * rounds)))
"""


def behind(pgbouncer: PgBouncer, database: Database) -> Database:
    settings = pgbouncer.django_settings("transaction")
    return replace(database, alias="behind", settings=settings)


def test_senders_and_streams_are_exact_and_the_missing_notifications_are_told_once(
    app_server, postgres_only, pgbouncer, unique_channel
):
    database = behind(pgbouncer, postgres_only)
    server = app_server(database, "uvicorn+wrapper")
    with clients_of([server], unique_channel, each=2) as clients:
        run_python(SEND, unique_channel, str(THREADS), str(ROUNDS), database=database.settings)
        last = THREADS * ROUNDS * EACH
        for client in clients:
            client.wait_for(last, 60)
            assert client.ids(unique_channel) == list(range(1, last + 1))
            said = [event.json() for event in client.events]
            assert "rolled back" not in said
            assert said.count("in a transaction") == said.count("alone") == THREADS * ROUNDS
        wait_until(lambda: WARNING in server.log_text(), 60)
    assert server.log_text().count(WARNING) == 1


def test_one_process_at_a_time_has_the_lease_of_the_watch(postgres_only, pgbouncer):
    database = behind(pgbouncer, postgres_only)
    configure(database)
    with database.as_default():
        ours, theirs = Watch(DjangoModelStorage()), Watch(DjangoModelStorage())
        assert ours.take_lease() == 0
        assert theirs.take_lease() > 0
        ours.release()
        assert theirs.take_lease() == 0
        theirs.release()
