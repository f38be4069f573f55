"""A project comes from the predecessor's tables and can go back, with its events, everywhere."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.migrations.executor import MigrationExecutor
from django.test.utils import CaptureQueriesContext

from django_eventstream import send_event, send_events
from django_eventstream.backends import get_storage
from django_eventstream.events import Event
from django_eventstream.models import Event as Row
from django_eventstream.models import EventCounter
from django_eventstream.storage.base import Sweep
from tests.integration.test_guides import blocks
from tests.services.databases import Database
from tests.services.python import manage

APP = "django_eventstream"
FIRST = f"{APP}_event"
LATEST = "0005"

OLD_EVENT = """
INSERT INTO django_eventstream_event (channel, type, data, eid, created)
VALUES (%s, 'message', %s, %s, CURRENT_TIMESTAMP)
"""
OLD_COUNTER = """
INSERT INTO django_eventstream_eventcounter (name, value, updated)
VALUES (%s, %s, '2026-01-01 00:00:00')
"""


def migrate(database: Database, name: str) -> None:
    call_command("migrate", APP, name, database=database.alias, verbosity=0)


@pytest.fixture
def old_tables(default_database):
    """The tables as the predecessor's `0001_initial` makes them."""
    migrate(default_database, "0001")
    yield default_database
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_eventstream_event")
        cursor.execute("DELETE FROM django_eventstream_eventcounter")
    migrate(default_database, "0001")
    migrate(default_database, LATEST)


def write(*rows: tuple[str, list]) -> None:
    with connection.cursor() as cursor:
        for statement, values in rows:
            cursor.execute(statement, values)


def table() -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT channel, eid, data FROM django_eventstream_event ORDER BY id")
        return [tuple(row) for row in cursor.fetchall()]


def columns(name: str) -> dict[str, bool]:
    """Column by column, whether it may be NULL."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_table_description(cursor, name)
    return {column.name: bool(column.null_ok) for column in found}


def indexed(name: str) -> set[tuple[str, ...]]:
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, name).values()
    return {tuple(one["columns"]) for one in found if one["index"] or one["unique"]}


@pytest.mark.parametrize(
    "auto_field",
    [
        "django.db.models.BigAutoField",
        "django.db.models.AutoField",
        "tests.keys.LargeKey",
    ],
)
def test_no_migration_is_missing_whatever_the_project_calls_an_id(sqlite_only, auto_field):
    settings = {"DEFAULT_AUTO_FIELD": auto_field}
    arguments = ["makemigrations", "--check", "--dry-run", APP]
    assert "No changes" in manage(*arguments, database=sqlite_only.settings, settings=settings)


def test_the_first_migration_makes_the_tables_of_the_predecessor(old_tables):
    """As dumped from a database that django-eventstream 5.3.4 had made."""
    assert columns(FIRST) == dict.fromkeys(
        ["id", "channel", "type", "data", "eid", "created"], False
    )
    assert columns(f"{APP}_eventcounter") == dict.fromkeys(
        ["id", "name", "value", "updated"], False
    )
    expected = {("channel",), ("type",), ("eid",), ("created",), ("channel", "eid")}
    assert expected <= indexed(FIRST)
    assert {("name",), ("updated",)} <= indexed(f"{APP}_eventcounter")


def test_a_predecessors_events_stay_and_its_ids_go_on(old_tables):
    write(
        (OLD_EVENT, ["a", "", 0]),
        (OLD_EVENT, ["a", '"1"', 1]),
        (OLD_EVENT, ["a", '"2"', 2]),
        (OLD_COUNTER, ["a", 2]),
    )
    migrate(old_tables, LATEST)
    assert [event.id for event in get_storage().read("a", 1, 9)] == [2]
    assert send_event("a", "message", 3).id == 3
    assert [event.data for event in get_storage().read("a", 0, 9)] == ["1", "2", "3"]


def test_processes_of_the_predecessor_may_go_on_writing_to_our_tables(default_database):
    """During a deployment both run: it numbers by the counter, and does not know our column."""
    send_event("a", "message", 1)
    with transaction.atomic():
        counter = EventCounter.objects.select_for_update().get(name="a")
        write((OLD_EVENT, ["a", '"2"', counter.value + 1]))
        counter.value += 1
        counter.save()
    assert send_event("a", "message", 3).id == 3
    assert [event.data for event in get_storage().read("a", 0, 9)] == ["1", "2", "3"]


def test_going_back_numbers_what_was_waiting(default_database):
    with transaction.atomic():
        get_storage().stage([Event("a", "message", "waiting"), Event("b", "message", "waiting")])
    send_event("a", "message", "sent")
    migrate(default_database, "0001")
    try:
        waiting = '"waiting"'
        assert table() == [("a", 2, waiting), ("b", 1, waiting), ("a", 1, '"\\"sent\\""')]
        assert "skip_user_ids" not in columns(FIRST)
        assert columns(FIRST)["eid"] is False
        assert ("eid",) in indexed(FIRST)
    finally:
        migrate(default_database, LATEST)
    assert [event.data for event in get_storage().read("a", 0, 9)] == ['"sent"', "waiting"]
    assert send_event("a", "message", 3).id == 3


def test_back_and_forth_leaves_no_difference(default_database):
    before = columns(FIRST), indexed(FIRST), indexed(f"{APP}_eventcounter")
    send_event("a", "message", 1)
    migrate(default_database, "0001")
    migrate(default_database, LATEST)
    assert (columns(FIRST), indexed(FIRST), indexed(f"{APP}_eventcounter")) == before
    assert send_event("a", "message", 2).id == 2


BEYOND_32_BITS = 2**31 + 5


def sequence_next_key(next_key: int) -> None:
    """Continues as if so many events had been stored, or rolled back."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            sequence = f"pg_get_serial_sequence('{FIRST}', 'id')"
            cursor.execute(f"SELECT setval({sequence}, {next_key}, false)")
        elif connection.vendor == "mysql":
            cursor.execute(f"ALTER TABLE {FIRST} AUTO_INCREMENT = {next_key}")
        else:
            cursor.execute(f"DELETE FROM sqlite_sequence WHERE name = '{FIRST}'")
            values = f"('{FIRST}', {next_key - 1})"
            cursor.execute(f"INSERT INTO sqlite_sequence (name, seq) VALUES {values}")


def test_events_are_stored_when_32_bits_of_keys_are_used_up(old_tables):
    """After 248 days of a hundred events a second every send failed."""
    write((OLD_EVENT, ["a", '"1"', 1]), (OLD_COUNTER, ["a", 1]))
    migrate(old_tables, LATEST)
    sequence_next_key(BEYOND_32_BITS)
    try:
        assert send_event("a", "message", 2).id == 2
        with transaction.atomic():
            send_event("a", "message", 3)
        assert [event.data for event in get_storage().read("a", 0, 9)] == ["1", "2", "3"]
        assert Row.objects.get(eid=2).pk == BEYOND_32_BITS
        assert get_storage().sweep(BEYOND_32_BITS, 5, lambda channel: (None, None)) == Sweep()
        assert get_storage().trim("a", None, 1, 10) == 2
    finally:
        Row.objects.all().delete()
        sequence_next_key(1)


def test_a_large_table_on_postgresql_is_changed_in_the_steps_of_the_guide(postgres_only):
    """The site sends on meanwhile, and `migrate` has nothing to write anew then."""
    prepare, copy, index, constraint, swap = blocks("howto/upgrading.md", "sql")

    def execute(sql: str) -> int:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.rowcount

    def send(number: int) -> None:
        with transaction.atomic():
            assert send_event("a", "message", number, skip_user_ids=[7]).id is None

    with postgres_only.as_default():
        migrate(postgres_only, "0004")
        send_events([("a", "message", number) for number in range(1, 6)])
        execute(prepare)
        send(6)
        copied = [execute(copy.replace("10000", "3")) for _ in range(3)]
        assert copied == [3, 2, 0]
        send(7)
        execute(index)
        execute(constraint)
        send(8)
        execute(swap)
        send(9)
        file = f"SELECT pg_relation_filenode('{FIRST}')"
        before = column(file)
        migrate(postgres_only, LATEST)
        assert column(file) == before
        send(10)
        assert [event.data for event in get_storage().read("a", 0, 99)] == [
            str(number) for number in range(1, 11)
        ]
        assert Row.objects.order_by("id").values_list("eid", flat=True)[9] == 10
        sequence_next_key(BEYOND_32_BITS)
        send(11)
        # The tables of other tests have their columns in the usual order.
        Row.objects.all().delete()
        sequence_next_key(1)
        migrate(postgres_only, "zero")
        migrate(postgres_only, LATEST)


def column(sql: str) -> list[object]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [row[0] for row in cursor.fetchall()]


def test_sqlite_copies_no_table_for_what_it_has_already(sqlite_only):
    with sqlite_only.as_default():
        migrate(sqlite_only, "0004")
        with CaptureQueriesContext(connection) as captured:
            migrate(sqlite_only, LATEST)
    assert not [query for query in captured if "CREATE TABLE" in query["sql"]]


def test_nameless_channels_of_the_predecessor_are_not_taken_for_the_epoch(old_tables):
    write((OLD_EVENT, ["", '"1"', 1]), (OLD_COUNTER, ["", 7]), (OLD_COUNTER, ["a", 1]))
    migrate(old_tables, LATEST)
    position = get_storage().get_position(["a"])
    assert (position.ids, position.epoch) == ({"a": 1}, 0)
    assert table() == []


@pytest.fixture
def old_mariadb_tables(mariadb_only):
    migrate(mariadb_only, "0001")
    yield mariadb_only
    write(("DELETE FROM django_eventstream_event", []))
    write(("DELETE FROM django_eventstream_eventcounter", []))
    migrate(mariadb_only, LATEST)


@pytest.fixture
def mariadb_only(database_of, django_db_blocker):
    with django_db_blocker.unblock():
        database = database_of("mariadb")
        database.empty()
        with database.as_default():
            yield database
        connections[database.alias].close()


def test_channels_that_shared_a_counter_get_their_own(old_mariadb_tables):
    """`room` and `ROOM` were one channel of MariaDB, with ids of one counter."""
    write(
        (OLD_EVENT, ["room", '"1"', 1]),
        (OLD_EVENT, ["ROOM", '"2"', 2]),
        (OLD_EVENT, ["room", '"3"', 3]),
        (OLD_COUNTER, ["room", 3]),
    )
    migrate(old_mariadb_tables, LATEST)
    assert dict(get_storage().get_position(["room", "ROOM", "Room"]).ids) == {
        "room": 3,
        "ROOM": 2,
        "Room": 0,
    }
    assert send_event("room", "message", 4).id == 4
    assert send_event("ROOM", "message", 3).id == 3
    assert [event.id for event in get_storage().read("ROOM", 2, 9)] == [3]


def test_going_back_with_names_that_are_only_alike_is_refused_in_words(mariadb_only):
    send_event("room", "message", 1)
    send_event("ROOM", "message", 1)
    with pytest.raises(
        RuntimeError, match="1 channels have names that .* takes for those of other"
    ):
        migrate(mariadb_only, "0002")
    assert send_event("ROOM", "message", 2).id == 2
    migrate(mariadb_only, LATEST)


def test_old_tables_of_another_character_set_take_every_name(old_mariadb_tables):
    for column in ("channel", "type"):
        write(
            (
                f"ALTER TABLE {FIRST} MODIFY {column} varchar(255) CHARACTER SET latin1 NOT NULL",
                [],
            )
        )
    write((OLD_EVENT, ["caf\u00e9", '"1"', 1]), (OLD_COUNTER, ["caf\u00e9", 1]))
    migrate(old_mariadb_tables, LATEST)
    assert send_event("caf\u00e9", "typ\u00e9💥", 2).id == 2
    assert [event.type for event in get_storage().read("caf\u00e9", 0, 9)] == [
        "message",
        "typ\u00e9💥",
    ]


def test_every_migration_is_applied_by_the_fixture(default_database):
    executor = MigrationExecutor(connection)
    assert executor.migration_plan(executor.loader.graph.leaf_nodes(APP)) == []
