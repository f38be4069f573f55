"""What sending and reading ask of the database, counted, with few and with many events stored."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_eventstream import get_current_event_id, send_event, send_events
from django_eventstream.backends import get_storage
from django_eventstream.exceptions import HistoryGoneError
from django_eventstream.models import Event, EventCounter
from django_eventstream.storage.base import WatchPosition

TABLE = Event._meta.db_table
COUNTERS = EventCounter._meta.db_table
MANY = 100_000
CHANNELS = 50

ONE_TO_A_HUNDRED = "(" + " UNION ALL SELECT ".join(["SELECT 0 n", *map(str, range(1, 100))]) + ")"


def fill(count: int, days_old: float) -> None:
    """Stores events of 50 channels, round robin, as the database does it fastest."""
    per_channel = count // CHANNELS
    created = connection.ops.adapt_datetimefield_value(timezone.now() - timedelta(days=days_old))
    numbers = f"SELECT x.n + 100 * y.n n FROM {ONE_TO_A_HUNDRED} x, {ONE_TO_A_HUNDRED} y"
    pipes = "CONCAT('c', c.n)" if connection.vendor == "mysql" else "'c' || c.n"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {TABLE} (channel, type, data, eid, created)"
            f" SELECT {pipes}, 'message', %s, i.n + 1, %s FROM ({numbers}) i, ({numbers}) c"
            f" WHERE c.n < {CHANNELS} AND i.n < {per_channel} ORDER BY i.n, c.n",
            [json.dumps("x" * 100), created],
        )
        cursor.execute(
            f"INSERT INTO {COUNTERS} (name, value, updated)"
            f" SELECT {pipes}, CASE WHEN c.n < {CHANNELS} THEN {per_channel} ELSE 0 END, %s"
            f" FROM ({numbers}) c",
            [created],
        )
        if connection.vendor == "sqlite":
            cursor.execute("ANALYZE")
        elif connection.vendor == "postgresql":
            cursor.execute(f"ANALYZE {TABLE}, {COUNTERS}")
        else:
            cursor.execute(f"ANALYZE TABLE {TABLE}, {COUNTERS}")
            cursor.fetchall()


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements of a block, but those that only begin and end transactions."""
    found: list[str] = []
    with CaptureQueriesContext(connection) as captured:
        yield found
    found += [
        query["sql"]
        for query in captured
        if not re.match("(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)", query["sql"])
    ]


HISTORIES = [
    pytest.param((CHANNELS, 0), id="few"),
    pytest.param((MANY, 3), id="many expired"),
]


@pytest.fixture(autouse=True)
def nobody_looked_for(monkeypatch):
    monkeypatch.setattr("django_eventstream.outbox._Look.due", float("inf"))


@pytest.mark.parametrize("history", HISTORIES)
def test_sending_costs_two_statements_and_one_on_postgresql(default_database, history):
    fill(*history)
    limit = 1 if connection.vendor == "postgresql" else 2
    for _ in range(3):
        with statements() as found:
            event = send_event("c1", "message", "x")
        assert len(found) == limit, found
    assert event.id == get_storage().get_position(["c1"]).ids["c1"]


@pytest.fixture
def few_events(default_database):
    fill(CHANNELS, 0)


def test_the_first_event_of_a_channel_costs_little_more(few_events):
    with statements() as found:
        send_event("new", "message", "x")
    assert len(found) <= 5, found


def test_many_events_at_once_cost_no_more_statements_than_one_for_each_channel(few_events):
    with statements() as found:
        send_events([(f"c{n % 2}", "message", n) for n in range(100)])
    assert len(found) == (1 if connection.vendor == "postgresql" else 2 + 1), found


AFTER_COMMIT = {"sqlite": 2, "postgresql": 1, "mysql": 4}


def test_in_a_transaction_the_sender_pays_one_statement_and_the_commit_few(few_events):
    with statements() as committed:
        with transaction.atomic(), statements() as found:
            send_event("c1", "message", "x")
        assert len(found) == 1, found
    assert len(committed) - len(found) == AFTER_COMMIT[connection.vendor], committed


def test_many_events_at_once_are_staged_by_one_statement(few_events):
    with transaction.atomic(), statements() as found:
        send_events([(f"c{n % 2}", "message", n) for n in range(100)])
    assert len(found) == 1, found


def test_a_hundred_sends_of_a_transaction_are_numbered_once(few_events):
    with statements() as committed, transaction.atomic():
        for n in range(100):
            send_event("c1", "message", n)
    assert len(committed) - 100 == AFTER_COMMIT[connection.vendor], committed[100:]


def test_reading_costs_one_statement(few_events):
    log = get_storage()
    last = log.get_position(["c1"]).ids["c1"]
    with statements() as found:
        assert log.read("c1", last - 1, 500)[0].id == last
    assert len(found) == 1
    with statements() as found:
        assert log.read("c1", last, 500) == []
    assert len(found) == 2


def test_the_position_of_a_thousand_channels_costs_one_statement(few_events):
    with statements() as found:
        get_storage().get_position([f"c{n}" for n in range(1_000)])
    assert len(found) == 1
    with statements() as found:
        get_current_event_id(["c1", "c2"])
    assert len(found) == 1


def test_history_that_is_gone_is_found_out_in_one_statement(default_database):
    send_events([("a", "message", n) for n in range(5)])
    get_storage().trim("a", None, 2, 10)
    with statements() as found, pytest.raises(HistoryGoneError):
        get_storage().read("a", 0, 500)
    assert len(found) == 1


# Plans


def plan(sql: str) -> str:
    """What the database says that it would do."""
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN", "mysql": "EXPLAIN"}
    with connection.cursor() as cursor:
        cursor.execute(f"{explain[connection.vendor]} {sql}")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return "\n".join(" ".join(f"{k}={v}" for k, v in row.items()) for row in rows)


def assert_uses_indexes(sql: str) -> None:
    found = plan(sql)
    if connection.vendor == "sqlite":
        assert not re.search(rf"SCAN (TABLE )?({TABLE}|{COUNTERS})", found), f"{sql}\n{found}"
    elif connection.vendor == "postgresql":
        assert f"Seq Scan on {TABLE} " not in found, f"{sql}\n{found}"
        assert f"Seq Scan on {COUNTERS} " not in found, f"{sql}\n{found}"
    else:
        tables = [line for line in found.splitlines() if f"table={TABLE}" in line]
        assert not [line for line in tables if "type=ALL" in line or "type=index " in line], found
        for rows in re.findall(rf"table={TABLE} .*?rows=(\d+)", found):
            assert int(rows) < MANY / 10, f"{sql}\n{found}"


@pytest.fixture
def many_events(default_database):
    fill(MANY, 0)


def test_every_question_and_every_removal_uses_an_index(many_events):
    log = get_storage()
    with statements() as found:
        log.read("c1", 5, 500)
        log.read("c1", 10**6, 500)
        log.get_position([f"c{n}" for n in range(CHANNELS)])
        log.get_position([])
        with transaction.atomic():
            send_event("c1", "message", "staged")
        log.trim("c1", timezone.now() - timedelta(hours=1), 100, 1_000)
        log.trim("c2", timezone.now() + timedelta(hours=1), None, 1_000)
        log.append([])
    questions = [sql for sql in found if re.match(r"\s*\(?(SELECT|DELETE|UPDATE|WITH)", sql)]
    assert len(questions) >= 8
    for sql in questions:
        assert_uses_indexes(sql)
    assert_reads_only_its_channel(found[0])


def test_channels_that_moved_lately_are_found_by_an_index(default_database):
    fill(MANY, 3)
    log = get_storage()
    for position in (WatchPosition(), WatchPosition(log.now())):
        with statements() as found:
            log.changed_since(position, 2_160, 2, 5_000)
        assert len(found) == 1
        assert re.search(r"eventcounter_updated", plan(found[0])), plan(found[0])


def assert_reads_only_its_channel(sql: str) -> None:
    """PostgreSQL chose the index of `eid`, and went through the rows of every channel."""
    expected = {
        "sqlite": "(channel=? AND eid>? AND eid<?)",
        "postgresql": "(eid <= 505)",
        "mysql": "key=django_eventstream_event_channel_eid",
    }
    assert expected[connection.vendor] in plan(sql)
