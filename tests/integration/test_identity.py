"""Which log a connection leads to, however its address is written."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext, override_settings

from django_eventstream import send_event
from django_eventstream.channelmanager import DefaultChannelManager
from django_eventstream.events import Event
from django_eventstream.exceptions import (
    IncompatibleSettings,
    PublishError,
    StorageUnavailableError,
)
from django_eventstream.hub.log import LogReader
from django_eventstream.logs import require_home, stamped
from django_eventstream.storage import DjangoModelStorage, identity
from django_eventstream.storage.base import LogPosition
from django_eventstream.storage.identity import identify
from tests.redis_log import redis_log
from tests.services.deadline import HEALTHY


def other(database, **settings):
    """Another connection to the database of a test, with other settings."""
    own = connections[database.alias]
    return type(own)({**own.settings_dict, **settings}, database.alias)


@pytest.fixture(autouse=True)
def knows_nothing(monkeypatch) -> None:
    """Other tests make the tables anew, which makes another log."""
    monkeypatch.setattr(identity, "_found", {})
    monkeypatch.setattr(identity, "_silent_until", {})


@pytest.fixture
def asked(monkeypatch) -> list[object]:
    """The connections that were asked."""
    found: list[object] = []
    ask = identity._ask
    monkeypatch.setattr(identity, "_ask", lambda given: found.append(given) or ask(given))
    return found


def test_a_log_is_asked_once_and_not_through_the_connection_of_the_caller(default_database, asked):
    own = connections["default"]
    with CaptureQueriesContext(own) as queries:
        ids = {identify(own) for _ in range(3)}
    assert len(ids) == len(asked) == 1
    assert all(len(found) == 16 for found in ids)
    assert len(queries) == 0


def test_a_crowd_that_comes_at_once_asks_a_log_once(default_database, asked, monkeypatch):
    """Each of them opened another connection besides its own: 20 requests had 40 together."""
    own, start = connections["default"], threading.Barrier(10)
    ask = identity._ask

    def ask_slowly(connection) -> str:
        time.sleep(0.2)
        return ask(connection)

    def come(_) -> str:
        start.wait(HEALTHY)
        return identify(own)

    monkeypatch.setattr(identity, "_ask", ask_slowly)
    with ThreadPoolExecutor(10) as crowd:
        found = set(crowd.map(come, range(10)))
    assert len(found) == len(asked) == 1


def test_a_crowd_does_not_ask_a_log_that_did_not_answer_one_after_the_other(monkeypatch):
    own, start, asked = connections["default"], threading.Barrier(10), []

    def fail(connection) -> str:
        asked.append(connection)
        time.sleep(0.2)
        raise OSError("no route to host")

    def come(_) -> str:
        start.wait(HEALTHY)
        with pytest.raises(StorageUnavailableError, match="cannot be identified") as refused:
            identify(own)
        return str(refused.value)

    monkeypatch.setattr(identity, "_ask", fail)
    with ThreadPoolExecutor(10) as crowd:
        told = Counter(crowd.map(come, range(10)))
    assert len(asked) == 1
    assert sorted(told.values()) == [1, 9]


def test_every_database_is_another_log(database_of, django_db_blocker):
    with django_db_blocker.unblock():
        names = ("sqlite", "postgres", "mariadb")
        ids = {identify(connections[database_of(name).alias]) for name in names}
    assert len(ids) == 3


def test_another_way_to_the_same_postgresql_leads_to_the_same_log(postgres_only, asked):
    """Through a pooler, say: by its settings alone it would be another log."""
    same = other(postgres_only, HOST="localhost")
    assert identify(same) == identify(connections[postgres_only.alias])
    assert len(asked) == 2


@pytest.mark.parametrize("name", ["sqlite", "postgres", "mariadb"])
def test_the_time_zone_of_a_process_makes_no_other_log(database_of, django_db_blocker, asked, name):
    """The record of migrations has a time, which reads otherwise in another zone."""
    with django_db_blocker.unblock():
        database = database_of(name)
        elsewhere = other(database, TIME_ZONE="Asia/Tokyo", USER=database.settings.get("USER"))
        own = identify(connections[database.alias])
        identity._found.clear()
        assert identify(elsewhere) == own
    assert len(asked) == 2


def test_a_database_in_memory_is_none_that_others_share(sqlite_only):
    memory = "file:nobody?mode=memory&cache=shared"
    assert identify(other(sqlite_only, NAME=memory)) == ""


def test_another_path_of_the_same_file_leads_to_the_same_log_and_a_copy_does_not(sqlite_only):
    path = Path(connections[sqlite_only.alias].settings_dict["NAME"])
    link, copy = path.with_name("link.sqlite3"), path.with_name("copy.sqlite3")
    # A hard link would have a write-ahead log of its own, and break the database of all tests.
    link.symlink_to(path)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    own = identify(connections[sqlite_only.alias])
    assert identify(other(sqlite_only, NAME=str(link))) == own
    assert identify(other(sqlite_only, NAME=str(copy))) != own
    link.unlink()
    copy.unlink()


def test_the_schema_that_has_the_table_counts_and_not_the_one_that_comes_first(postgres_only):
    """A tenant's schema comes first where the table is in the shared one."""
    name = postgres_only.settings["NAME"]

    def seen_by(path: str) -> str:
        return identify(other(postgres_only, OPTIONS={"options": f"-c search_path={path}"}))

    own = identify(connections[postgres_only.alias])
    postgres_only.server.sql("CREATE SCHEMA tenant", name)
    try:
        assert seen_by("tenant,public") == own
        assert seen_by("tenant") == ""
        for table in ("django_eventstream_event", "django_migrations"):
            statement = f"CREATE TABLE tenant.{table} AS TABLE public.{table}"
            postgres_only.server.sql(statement, name)
        identity._found.clear()
        assert seen_by("tenant,public") not in ("", own)
    finally:
        postgres_only.server.sql("DROP SCHEMA tenant CASCADE", name)
        identity._found.clear()


class Uncopyable:
    """An option that cannot be copied, such as a TLS context for MySQL."""

    def __call__(self, *args, **kwargs) -> sqlite3.Connection:
        return sqlite3.Connection(*args, **kwargs)

    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle 'SSLContext' object")


def test_options_that_cannot_be_copied_are_used_as_they_are(sqlite_only, asked):
    """The log was never known, and no stream was opened."""
    assert identify(other(sqlite_only, OPTIONS={"factory": Uncopyable()}))


def test_no_connection_is_taken_from_a_pool(postgres_only, asked):
    """Who had the last one of a pool waited for itself, and the log was never known."""
    assert identify(other(postgres_only, OPTIONS={"pool": {"max_size": 1}}))


def test_a_role_that_may_not_read_the_record_of_migrations_gets_a_log(postgres_only, asked):
    """The log was never known to it, and no stream was opened."""
    name = postgres_only.settings["NAME"]
    postgres_only.server.sql(
        "CREATE ROLE log_only; GRANT USAGE ON SCHEMA public TO log_only; "
        "GRANT SELECT ON django_eventstream_event TO log_only",
        name,
    )
    try:
        assert identify(other(postgres_only, OPTIONS={"assume_role": "log_only"}))
    finally:
        postgres_only.server.sql("DROP OWNED BY log_only; DROP ROLE log_only", name)


def test_a_database_that_does_not_answer_is_not_asked_for_each_event(postgres_only, asked):
    away = other(postgres_only, PORT="1")
    for _ in range(3):
        with pytest.raises(StorageUnavailableError, match="cannot be identified"):
            identify(away)
    assert len(asked) == 1


def test_an_event_of_a_log_that_nobody_knows_now_is_passed_on_all_the_same(monkeypatch):
    def away(storage):
        raise StorageUnavailableError("away")

    monkeypatch.setattr("django_eventstream.logs.id_of", away)
    assert [event.log for event in stamped([Event("a", "message", "x")])] == [None]


def test_without_a_thread_to_ask_in_an_event_is_passed_on_all_the_same(
    default_database, monkeypatch
):
    """The sender got a RuntimeError, after its event was committed."""
    identify(connections["default"])
    monkeypatch.setattr("django_eventstream.logs._Home.log", None)

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", start)
        assert [event.log for event in stamped([Event("a", "message", "x")])] == [None]


class OtherThreadsRouter:
    """Fails where there is no request."""

    thread = ""

    def db_for_write(self, model, **hints):
        if threading.current_thread().name != self.thread:
            raise AttributeError("no request")
        return "default"


def test_a_router_that_fails_without_a_request_is_named(default_database, monkeypatch):
    monkeypatch.setattr(OtherThreadsRouter, "thread", threading.current_thread().name)
    monkeypatch.setattr("django_eventstream.logs._Home.log", None)
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.OtherThreadsRouter"]):
        with pytest.raises(IncompatibleSettings, match="OtherThreadsRouter.*no request"):
            require_home()
        with pytest.raises(PublishError, match="docs/howto/tenants.md"):
            send_event("a", "message", "x", async_publish=False)


class NothingReliable(DefaultChannelManager):
    def is_channel_reliable(self, channel):
        return False


def test_a_task_without_a_request_may_send_what_is_not_stored(monkeypatch, caplog):
    """Which log it would have used was asked of a router that needs a request: that failed."""
    monkeypatch.setattr(OtherThreadsRouter, "thread", "that of a request")
    monkeypatch.setattr("django_eventstream.outbox._Refusal.text", "")
    with override_settings(
        DATABASE_ROUTERS=[f"{__name__}.OtherThreadsRouter"],
        EVENTSTREAM_CHANNELMANAGER_CLASS=f"{__name__}.NothingReliable",
    ):
        send_event("a", "message", "x")
    assert "no request" in caplog.text


def test_logs_in_redis_are_told_apart_by_database_and_prefix(redis_server):
    assert redis_log(redis_server).log_id() == redis_log(redis_server, port=1).log_id()
    assert redis_log(redis_server).log_id() != redis_log(redis_server, db=1).log_id()


def test_a_log_is_identified_though_its_pool_has_no_connection_left(postgres_only, asked):
    """Whoever sent held the only one, and waited five seconds for another, again and again."""
    options = connections[postgres_only.alias].settings_dict["OPTIONS"]
    pool = {"min_size": 1, "max_size": 1, "timeout": 10}
    pooled = other(postgres_only, OPTIONS={**options, "pool": pool}, CONN_MAX_AGE=0)
    pooled.ensure_connection()
    try:
        assert identify(pooled) == identify(connections[postgres_only.alias])
    finally:
        pooled.close()
        pooled.close_pool()


def test_streams_open_where_the_log_cannot_be_identified(postgres_only, asked):
    """Where the server refused a second connection there were no streams at all."""
    name, settings = postgres_only.settings["NAME"], connections[postgres_only.alias].settings_dict
    tables = "django_eventstream_event, django_eventstream_eventcounter"
    postgres_only.server.sql("CREATE ROLE narrow LOGIN PASSWORD 'narrow' CONNECTION LIMIT 1", name)
    postgres_only.server.sql(f"GRANT SELECT, UPDATE, INSERT ON {tables} TO narrow", name)
    reader = LogReader(DjangoModelStorage(postgres_only.alias))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(settings, "USER", "narrow")
        patch.setitem(settings, "PASSWORD", "narrow")
        try:
            position = asyncio.run(_position(reader))
        finally:
            postgres_only.server.sql("DROP OWNED BY narrow", name)
            postgres_only.server.sql("DROP ROLE narrow", name)
    assert (position.ids, position.log) == ({"nobody": 0}, None)


async def _position(reader: LogReader) -> LogPosition:
    try:
        return await reader.get_position(["nobody"])
    finally:
        reader.rest()
        while reader.threads:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def test_a_sender_needs_no_thread_to_know_its_log(monkeypatch):
    """From 3.12 on Python begins none while it ends: an event was stored, and sending it failed."""

    def no_more(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("django_eventstream.logs._Home.log", None)
    with override_settings(EVENTSTREAM_STORAGE_CLASS="django_eventstream.storage.MemoryStorage"):
        monkeypatch.setattr(threading.Thread, "start", no_more)
        assert send_event("a", "message", "x").id == 1
