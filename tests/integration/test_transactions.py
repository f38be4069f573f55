"""What follows the caller's transactions: on whatever database they are, and whoever raises."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction
from django.test import TestCase
from django.test.utils import override_settings

from django_eventstream import outbox, send_event, send_events
from django_eventstream.api import channel_permission_changed
from django_eventstream.backends import get_storage
from django_eventstream.channelmanager import DefaultChannelManager
from django_eventstream.events import CONTROL_CHANNEL
from django_eventstream.exceptions import PublishError, StorageUnavailableError
from django_eventstream.publishers.base import Publisher
from django_eventstream.transactions import Step
from tests.redis_log import connection_to, settings_of
from tests.services.databases import Database

MEMORY = {"EVENTSTREAM_STORAGE_CLASS": "django_eventstream.storage.MemoryStorage"}
DATABASE: dict[str, object] = {}


class Forbidding(DefaultChannelManager):
    """Nobody may read; channels that begin with `loose` are not stored."""

    def can_read_channel(self, user, channel):
        return False

    def is_channel_reliable(self, channel):
        return not channel.startswith("loose")


class Recorder(Publisher):
    """A proxy that takes everything, or nothing on the channels that it refuses."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.refused = ""

    def publish(self, events, *, wait=False) -> None:
        taken = [event for event in events if event.channel != self.refused]
        self.told += [(event.channel, event.data) for event in taken]
        if wait and len(taken) < len(events):
            raise PublishError(f"{self.refused} is refused")


@pytest.fixture(autouse=True)
def recorder(monkeypatch) -> Iterator[Recorder]:
    recorder = Recorder()
    monkeypatch.setattr(outbox, "get_publishers", lambda: (recorder,))
    monkeypatch.setattr(outbox._Look, "due", float("inf"))
    with override_settings(EVENTSTREAM_CHANNELMANAGER_CLASS=f"{__name__}.Forbidding"):
        yield recorder


@pytest.fixture(params=["database", "redis", "memory"])
def log_settings(request) -> Iterator[dict[str, object]]:
    settings = MEMORY if request.param == "memory" else DATABASE
    if request.param == "redis":
        settings = settings_of(connection_to(request.getfixturevalue("redis_server")))
    with override_settings(**settings):
        yield settings
        if request.param == "redis":
            # Its sockets would be found unclosed by whichever test runs then.
            get_storage()._ready_to_ask().client.close()


@pytest.fixture
def each_log(log_settings, sqlite_only) -> Iterator[None]:
    """The log is in the caller's database, in Redis, and in memory."""
    with sqlite_only.as_default():
        yield


def stored(channel: str = "a") -> list[str]:
    return [event.data for event in get_storage().read(channel, 0, 1_000)]


def fail() -> None:
    raise ZeroDivisionError


# Another callback raises


@transaction.atomic
def send_beside_a_failing_callback(*, first: bool) -> None:
    if first:
        transaction.on_commit(fail)
    send_event("a", "message", 1)
    send_event("loose", "message", 2)
    channel_permission_changed(None, "a")
    if not first:
        transaction.on_commit(fail)


@pytest.mark.parametrize("first", [True, False])
def test_a_callback_of_the_project_that_raises_keeps_no_event_back(each_log, recorder, first):
    """Django calls no other after it: with the log in Redis or in memory the event was lost."""
    with pytest.raises(ZeroDivisionError):
        send_beside_a_failing_callback(first=first)
    assert stored() == ["1"]
    assert len(stored(CONTROL_CHANNEL)) == 1
    assert [channel for channel, _ in recorder.told] == ["a", CONTROL_CHANNEL, "loose"]


@pytest.mark.parametrize("refused", ["loose", "a", "b"])
def test_a_waiting_sender_is_told_of_a_failure_after_everything_was_sent(
    each_log, recorder, refused
):
    """A refused publish of an event that is not stored kept one from the log that is."""
    recorder.refused = refused
    with pytest.raises(PublishError, match=refused), transaction.atomic():
        send_to_all_and_wait()
    assert stored("a") == stored("b") == ["1"]
    sent = {"loose", "a", "b"} - {refused}
    assert {channel for channel, _ in recorder.told} == sent


def send_to_all_and_wait() -> None:
    for channel in ("loose", "a", "b"):
        send_event(channel, "message", 1, async_publish=False)


def test_events_of_both_kinds_are_sent_together_though_a_proxy_refuses_one(each_log, recorder):
    """Those that are not stored were not sent if one of the others was refused."""
    recorder.refused = "a"
    with pytest.raises(PublishError):
        send_events([("a", "t", 1), ("loose", "t", 2)], async_publish=False)
    assert stored() == ["1"]
    assert recorder.told == [("loose", "2")]


def test_callbacks_of_the_project_come_after_what_was_sent(each_log, recorder):
    seen: list[list[str]] = []
    with transaction.atomic():
        transaction.on_commit(lambda: seen.append(stored()))
        send_event("a", "message", 1)
    assert seen == [["1"]]


def test_a_transaction_that_is_rolled_back_leaves_nothing_in_memory(each_log):
    """Each left a mark behind that no other one found."""
    before = steps()
    for n in range(300):
        with suppress(ZeroDivisionError), transaction.atomic():
            send_event(f"user-{n}", "message", n)
            send_event(f"loose-{n}", "message", n, async_publish=False)
            fail()
    assert connection.run_on_commit == []
    assert steps() <= before
    assert not outbox._overdue.channels


def steps() -> set[int]:
    gc.collect()
    return {id(found) for found in gc.get_objects() if isinstance(found, Step)}


# Savepoints


@pytest.fixture
def any_log_and_database(log_settings, default_database) -> None:
    """Each log, and a caller with each database."""


def test_a_savepoint_made_by_hand_takes_its_events_back(any_log_and_database, recorder):
    """They went to a log in Redis or in memory: Django forgets callbacks only of `atomic()`."""
    with transaction.atomic():
        send_event("a", "message", "before")
        savepoint = connection.savepoint()
        for n in range(2):
            send_event("a", "message", f"rolled back {n}")
            send_event("loose", "message", f"rolled back {n}")
            channel_permission_changed(None, "a")
            connection.savepoint_rollback(savepoint)
        send_event("a", "message", "after")
    assert stored() == ['"before"', '"after"']
    assert stored(CONTROL_CHANNEL) == []
    assert recorder.told == [("a", '"before"'), ("a", '"after"')]


def test_a_savepoint_takes_back_what_a_finished_block_sent_since(any_log_and_database):
    with transaction.atomic():
        outer = connection.savepoint()
        with transaction.atomic():
            send_event("a", "message", "in a block")
        inner = connection.savepoint()
        send_event("a", "message", "behind a second savepoint")
        connection.savepoint_rollback(inner)
        send_event("a", "message", "rolled back with the first")
        connection.savepoint_rollback(outer)
        inner = connection.savepoint()
        send_event("a", "message", "kept")
        connection.savepoint_commit(inner)
    assert stored() == ['"kept"']


# Several databases


@pytest.fixture(params=["postgres", "mariadb"])
def log_database(request, database_of, django_db_blocker) -> Iterator[Database]:
    """The log's own database; the default one is another, in SQLite."""
    with django_db_blocker.unblock(), ExitStack() as stack:
        database, default = database_of(request.param), database_of("sqlite")
        database.empty()
        routers = [
            type("Router", (), {"db_for_write": lambda self, model, **hints: database.alias})()
        ]
        stack.enter_context(override_settings(DATABASE_ROUTERS=routers))
        stack.enter_context(default.as_default())
        yield database
        connections[database.alias].close()


def control() -> int:
    return len(stored(CONTROL_CHANNEL))


def test_a_permission_is_announced_after_the_commit_though_the_log_is_elsewhere(
    log_database, recorder
):
    """Announced before, a stream that was opened in between read on for ever."""
    with transaction.atomic():
        channel_permission_changed(None, "a")
        assert (control(), recorder.told) == (0, [])
    assert control() == len(recorder.told) == 1


def test_a_permission_that_is_rolled_back_ends_no_stream_though_the_log_is_elsewhere(
    log_database, recorder
):
    with suppress(ZeroDivisionError), transaction.atomic():
        channel_permission_changed(None, "a")
        fail()
    with transaction.atomic(), suppress(ZeroDivisionError), transaction.atomic():
        channel_permission_changed(None, "a")
        fail()
    assert (control(), recorder.told) == (0, [])


def test_a_permission_is_announced_after_each_commit_and_never_before(log_database, recorder):
    """The change may be in either of the databases."""
    with transaction.atomic():
        with transaction.atomic(using=log_database.alias):
            channel_permission_changed(None, "a")
            assert recorder.told == []
        assert len(recorder.told) == 1
    assert control() == len(recorder.told) == 2
    with suppress(ZeroDivisionError), transaction.atomic():
        with transaction.atomic(using=log_database.alias):
            channel_permission_changed(None, "a")
        fail()
    assert control() == len(recorder.told) == 3
    with transaction.atomic(using=log_database.alias):
        with transaction.atomic():
            channel_permission_changed(None, "a")
        assert len(recorder.told) == 3
    assert control() == len(recorder.told) == 5


def test_events_wait_for_the_callers_transaction_though_the_log_is_elsewhere(
    log_database, recorder
):
    """They were sent at once, and stayed if the transaction was rolled back."""
    with transaction.atomic():
        send_events([("a", "message", 1), ("b", "message", 1)])
        send_event("loose", "message", 1)
        with suppress(ZeroDivisionError), transaction.atomic():
            send_event("a", "message", "never")
            fail()
        assert (stored(), recorder.told) == ([], [])
    assert stored("a") == stored("b") == ["1"]
    assert recorder.told == [("a", "1"), ("b", "1"), ("loose", "1")]


def test_events_are_part_of_the_transaction_of_the_logs_own_database(log_database, recorder):
    with suppress(ZeroDivisionError), transaction.atomic():
        with transaction.atomic(using=log_database.alias):
            send_event("a", "message", 1)
            assert get_storage().get_position(["a"]).ids == {"a": 0}
        assert stored() == ["1"]
        fail()
    assert recorder.told == [("a", "1")]


NESTINGS: list[Callable[[str], list[str]]] = [
    lambda other: [DEFAULT_DB_ALIAS, other],
    lambda other: [other, DEFAULT_DB_ALIAS],
]


@pytest.fixture(params=[MEMORY, {"EVENTSTREAM_STORAGE_CLASS": None}])
def no_database_log(request) -> Iterator[None]:
    with override_settings(**request.param):
        yield


@pytest.mark.parametrize("nesting", NESTINGS)
def test_an_event_waits_for_all_transactions_of_the_caller(
    no_database_log, sqlite_only, postgres_only, recorder, nesting
):
    """It waited for that of the default database alone."""
    outer, inner = nesting(postgres_only.alias)
    with sqlite_only.as_default():
        with transaction.atomic(using=outer):
            with transaction.atomic(using=inner):
                send_event("a", "message", "committed")
            with suppress(ZeroDivisionError), transaction.atomic(using=inner):
                send_event("a", "message", "rolled back inside")
                fail()
            assert recorder.told == []
        with suppress(ZeroDivisionError), transaction.atomic(using=outer):
            with transaction.atomic(using=inner):
                send_event("a", "message", "rolled back outside")
            fail()
        with transaction.atomic(using=outer), transaction.atomic(using=outer):
            savepoint = connections[outer].savepoint()
            with transaction.atomic(using=inner):
                send_event("a", "message", "rolled back by a savepoint outside")
            connections[outer].savepoint_rollback(savepoint)
    assert recorder.told == [("a", '"committed"')]


# All or nothing

TRIGGERS = {
    "sqlite": (
        "CREATE TRIGGER refuse BEFORE INSERT ON django_eventstream_event WHEN NEW.type = 'bad'"
        " BEGIN SELECT RAISE(ABORT, 'refused'); END"
    ),
    "mysql": (
        "CREATE TRIGGER refuse BEFORE INSERT ON django_eventstream_event FOR EACH ROW"
        " IF NEW.type = 'bad' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'refused'; END IF"
    ),
}


@contextmanager
def refusing(database: Database) -> Iterator[None]:
    """The database takes no events of the type `bad`."""
    with connection.cursor() as cursor:
        if database.vendor == "postgresql":
            cursor.execute(
                "ALTER TABLE django_eventstream_event ADD CONSTRAINT refuse CHECK (type <> 'bad')"
            )
        else:
            cursor.execute(TRIGGERS[database.vendor])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            if database.vendor == "postgresql":
                cursor.execute("ALTER TABLE django_eventstream_event DROP CONSTRAINT refuse")
            else:
                cursor.execute("DROP TRIGGER refuse")


def test_a_caller_that_goes_on_after_a_failure_has_sent_none_of_the_events(
    default_database, recorder
):
    """Those before the one that was refused were sent by the commit on SQLite and MariaDB."""
    # More than MySQL's client puts into one statement.
    events = [("ab"[n % 2], "message", "x" * 50_000) for n in range(4)]
    with refusing(default_database), transaction.atomic():
        send_event("a", "message", "first")
        savepoint = connection.savepoint()
        with pytest.raises(StorageUnavailableError, match="refuse"):
            send_events([("loose", "message", 1), *events, ("a", "bad", "x")])
        if default_database.vendor == "postgresql":
            # It does nothing else before, whatever failed.
            connection.savepoint_rollback(savepoint)
        send_event("a", "message", "last")
    assert stored("a") == ['"first"', '"last"']
    assert stored("b") == []
    assert {channel for channel, _ in recorder.told} == {"a"}


# Tests of a project


class OfAProject(TestCase):
    """A log that is not in a database, seen by a `TestCase` that holds a second one open."""

    databases = {DEFAULT_DB_ALIAS}

    @override_settings(**MEMORY)
    def test_events_wait_for_captured_callbacks_of_the_default_database(self):
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            send_event("a", "message", 1)
            with suppress(ZeroDivisionError), transaction.atomic():
                send_event("a", "message", "rolled back")
                fail()
            send_event("loose", "message", 2)
            assert stored() == []
        assert len(callbacks) == 2
        assert stored() == ["1"]


def test_another_database_that_a_test_case_holds_open_holds_up_nothing(sqlite_only, postgres_only):
    """Nobody captures its callbacks: an event would have waited for ever."""
    with override_settings(**MEMORY), sqlite_only.as_default(), ExitStack() as stack:
        for alias in (DEFAULT_DB_ALIAS, postgres_only.alias):
            stack.enter_context(block_of_a_test_case(alias))
        with TestCase.captureOnCommitCallbacks(execute=True):
            send_event("a", "message", 1)
        assert stored() == ["1"]


def block_of_a_test_case(alias: str) -> transaction.Atomic:
    block = transaction.atomic(using=alias)
    block._from_testcase = True
    return block
