"""Many processes send to the same channels at once, while others read and trim."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from django.db import transaction

from django_eventstream import send_events
from django_eventstream.events import Event as Message
from django_eventstream.models import Event
from django_eventstream.storage import DjangoModelStorage
from tests.services.databases import Database
from tests.services.deadline import AT_ONCE
from tests.services.process import ServerProcess
from tests.services.python import start_python

ROUNDS = 40
CHANNELS = ("a", "b")

START_TOGETHER = """
import pathlib, sys, time
from django.db import connection, transaction
from django_eventstream import send_event, send_events
from django_eventstream.backends import get_storage
me, go, rounds = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
connection.ensure_connection()
deadline = time.monotonic() + 60
pathlib.Path(f"{go}.{me}").touch()
while not go.exists():
    assert time.monotonic() < deadline, "nobody said go"
    time.sleep(0.001)
"""
OUTSIDE = """
for n in range(rounds):
    send_event("a", "message", [me, n])
    send_event("b", "message", [me, n])
"""
TRANSACTIONS = """
for n in range(rounds):
    with transaction.atomic():
        for channel in sorted("ab", reverse=n % 2 == 0):
            send_event(channel, "message", [me, n])
"""
BULK = """
for n in range(0, rounds, 4):
    events = [(c, "message", [me, n + i]) for i in range(4) for c in sorted("ab", reverse=i % 2)]
    send_events(events)
"""
ROLLING_BACK = """
for n in range(rounds * 2):
    try:
        with transaction.atomic():
            send_event("a", "message", [me, n // 2])
            send_event("b", "message", [me, n // 2])
            if n % 2:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
"""
TRIMMING = """
for n in range(rounds):
    for channel in "ab":
        get_storage().trim(channel, None, 10, 7)
"""

Start = Callable[..., list[ServerProcess]]


@pytest.fixture
def start_together(database: Database, tmp_path: Path) -> Start:
    """Starts one process for each piece of code; they begin when all are ready."""
    started: list[ServerProcess] = []

    def start(*codes: str, rounds: int = ROUNDS, **options) -> list[ServerProcess]:
        go = tmp_path / "go"
        for number, code in enumerate(codes):
            arguments = [f"{number}", str(go), str(rounds)]
            log = tmp_path / f"log {number}"
            options = {"database": database.settings, **options}
            started.append(start_python(START_TOGETHER + code, *arguments, log=log, **options))
        for number, process in enumerate(started):
            process.wait_ready(Path(f"{go}.{number}").exists)
        go.touch()
        return started

    yield start
    for process in started:
        process.kill()


class Reader:
    """Looks at what is visible, again and again, as the streams do."""

    def __init__(self, database: Database) -> None:
        self.log = DjangoModelStorage(using=database.alias)
        self.rows = Event.objects.using(database.alias)
        self.seen: dict[str, list[str]] = {channel: [] for channel in CHANNELS}
        self.looks = 0

    def look(self) -> None:
        promised = self.log.get_position(CHANNELS).ids
        for channel, data in self.seen.items():
            rows = self.rows.filter(channel=channel, eid__gt=len(data)).order_by("eid")
            found = list(rows.values_list("eid", "data"))
            first = len(data) + 1
            assert [eid for eid, _ in found] == list(range(first, first + len(found)))
            data += [text for _, text in found]
            assert len(data) >= promised[channel], "a position was ahead of its events"
        self.looks += 1

    def look_while(self, processes: Iterable[ServerProcess]) -> None:
        processes = list(processes)
        while any(process.is_running for process in processes):
            self.look()
        self.look()

    def by_sender(self, channel: str) -> dict[str, list[int]]:
        found = defaultdict(list)
        for event in self.log.read(channel, 0, 100_000):
            sender, number = event.data.strip("[]").split(", ")
            found[sender.strip('"')].append(int(number))
        return found


def assert_all_succeeded(processes: list[ServerProcess]) -> None:
    for process in processes:
        assert process.wait() == 0, process.log_text()
        assert process.log_text() == ""


def test_ids_have_no_gap_and_each_sender_keeps_its_order(database, start_together):
    codes = [OUTSIDE, TRANSACTIONS, TRANSACTIONS, BULK, ROLLING_BACK]
    processes = start_together(*codes)
    reader = Reader(database)
    reader.look_while(processes)
    assert_all_succeeded(processes)
    for channel in CHANNELS:
        assert len(reader.seen[channel]) == len(codes) * ROUNDS
        assert reader.log.get_position([channel]).ids == {channel: len(codes) * ROUNDS}
        expected = {str(number): list(range(ROUNDS)) for number in range(len(codes))}
        assert reader.by_sender(channel) == expected
    assert not reader.rows.filter(eid=None).exists()
    assert reader.looks > 3


def test_trimming_beside_senders_leaves_the_last_events_without_a_hole(database, start_together):
    processes = start_together(OUTSIDE, TRANSACTIONS, BULK, TRIMMING, TRIMMING)
    assert_all_succeeded(processes)
    log = DjangoModelStorage(using=database.alias)
    rows = Event.objects.using(database.alias)
    for channel in CHANNELS:
        while log.trim(channel, None, 10, 1_000):
            pass
        kept = list(rows.filter(channel=channel).order_by("eid").values_list("eid", flat=True))
        assert kept == list(range(3 * ROUNDS - 9, 3 * ROUNDS + 1))


LONG_TRANSACTION = """
with transaction.atomic():
    send_event("a", "message", [me, 0])
    send_event("b", "message", [me, 0])
    pathlib.Path(f"{go}.open").touch()
    while not pathlib.Path(f"{go}.close").exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
"""


def test_a_long_transaction_holds_nobody_up(database, start_together, tmp_path):
    """Not on SQLite, where any transaction that writes holds up all others."""
    if database.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    [long] = start_together(LONG_TRANSACTION)
    long.wait_ready((tmp_path / "go.open").exists)
    log = DjangoModelStorage(using=database.alias)
    begin = time.monotonic()
    with_id = log.append([Message("a", "message", "at once"), Message("b", "message", "at once")])
    assert time.monotonic() - begin < AT_ONCE
    assert [event.id for event in with_id] == [1, 1]
    (tmp_path / "go.close").touch()
    assert_all_succeeded([long])
    assert [event.data for event in log.read("a", 0, 9)] == ["at once", '["0", 0]']


@pytest.mark.parametrize("count", [1, 5])
def test_a_long_transaction_that_began_later_does_not_hold_up_the_numbering_either(
    default_database, start_together, tmp_path, count
):
    """Its rows, which nobody may see yet, stand directly behind ours in the table."""
    if default_database.vendor == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    with transaction.atomic():
        send_events([("a", "message", n) for n in range(count)])
        [long] = start_together(LONG_TRANSACTION)
        long.wait_ready((tmp_path / "go.open").exists)
        begin = time.monotonic()
    assert time.monotonic() - begin < AT_ONCE
    log = DjangoModelStorage(using=default_database.alias)
    assert [event.id for event in log.read("a", 0, 9)] == list(range(1, count + 1))
    (tmp_path / "go.close").touch()
    assert_all_succeeded([long])
    assert log.get_position(["a", "b"]).ids == {"a": count + 1, "b": 1}


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_senders_with_another_isolation_neither_fail_nor_leave_gaps(
    database, start_together, level
):
    """Under REPEATABLE READ, PostgreSQL refused every sender but one, and MySQL locks gaps."""
    if database.vendor == "sqlite":
        pytest.skip("SQLite has one isolation")
    settings = database.copy()
    number = {"repeatable read": 3, "serializable": 4}[level]  # psycopg's IsolationLevel
    settings.setdefault("OPTIONS", {})["isolation_level"] = (
        number if database.vendor == "postgresql" else level
    )
    codes = [OUTSIDE, OUTSIDE, BULK, TRIMMING]
    processes = start_together(*codes, database=settings, rounds=20)
    assert_all_succeeded(processes)
    ids = DjangoModelStorage(using=database.alias).get_position(CHANNELS).ids
    assert ids == dict.fromkeys(CHANNELS, 60)
