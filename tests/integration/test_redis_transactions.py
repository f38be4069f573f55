"""An event that is kept in Redis waits for the transaction that it is sent in."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.test import TestCase
from django.test.utils import override_settings

from django_eventstream import get_current_event_id, send_event, send_events
from django_eventstream.exceptions import StorageUnavailableError
from tests.layers import Monitor
from tests.redis_log import connection_to, redis_log, settings_of


@pytest.fixture
def log(redis_server, sqlite_only):
    """The log of this process; its database has nothing to do with it."""
    with override_settings(**settings_of(connection_to(redis_server))), sqlite_only.as_default():
        yield redis_log(redis_server)


def stored(log, channel: str = "a") -> list[tuple[int, str]]:
    return [(event.id, event.data) for event in log.read(channel, 0, 1_000)]


def atomic_of_a_test_case() -> transaction.Atomic:
    block = transaction.atomic()
    block._from_testcase = True
    return block


def send_and_fail() -> None:
    send_event("a", "message", "never")
    raise ZeroDivisionError


def make_group_and_send() -> None:
    with transaction.atomic():
        Group.objects.create(name="committed")
        send_event("a", "message", 1)


def test_outside_a_transaction_it_is_stored_at_once(log):
    assert send_event("a", "message", 1).id == 1
    assert stored(log) == [(1, "1")]
    assert get_current_event_id(["a"]) == f"a:1,:{log.get_position([]).epoch}"


def test_inside_a_transaction_it_is_stored_by_the_commit(log):
    with transaction.atomic():
        assert send_event("a", "message", 1).id is None
        assert stored(log) == []
    assert stored(log) == [(1, "1")]


def test_rolled_back_it_was_never_sent(log):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        send_and_fail()
    with transaction.atomic():
        send_event("a", "message", 1)
    assert stored(log) == [(1, "1")]


def test_a_rolled_back_savepoint_takes_its_events_along_and_leaves_the_others(log):
    with transaction.atomic():
        send_event("a", "message", 1)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            send_and_fail()
        with transaction.atomic():
            send_event("a", "message", 2)
    assert stored(log) == [(1, "1"), (2, "2")]


def test_all_events_of_a_transaction_are_one_round_trip_and_one_message(log, redis_server):
    log.append([])
    send_event("b", "message", 0)
    monitor = Monitor(redis_server)
    with transaction.atomic():
        for n in range(20):
            send_event("ab"[n % 2], "message", n)
        send_events([("a", "message", "x"), ("b", "message", "y")])
    commands = list(monitor.commands())
    assert sum('"EVALSHA"' in line for line in commands) == 1
    assert sum('"PUBLISH"' in line for line in commands) == 1
    assert stored(log) == [(i, str(n)) for i, n in enumerate(range(0, 20, 2), 1)] + [(11, '"x"')]


def test_an_event_of_a_commit_callback_comes_after_those_sent_before_it(log):
    with transaction.atomic():
        transaction.on_commit(lambda: send_event("a", "message", "before"))
        send_event("a", "message", "inside")
        transaction.on_commit(lambda: send_event("a", "message", "after"))
    assert [data for _, data in stored(log)] == ['"inside"', '"before"', '"after"']


def test_a_redis_that_is_away_fails_the_commit_loudly_and_undoes_nothing(log, redis_server):
    with override_settings(EVENTSTREAM_PUBLISH_TIMEOUT=0.2):
        redis_server.kill()
        with pytest.raises(StorageUnavailableError, match="EVENTSTREAM_STORAGE_CONNECTION"):
            make_group_and_send()
    assert Group.objects.filter(name="committed").exists()
    redis_server.start()
    with transaction.atomic():
        send_event("a", "message", 2)
    assert stored(log) == [(1, "2")]


def test_tests_of_a_project_see_what_would_be_sent(log):
    with atomic_of_a_test_case():
        with TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
            send_event("a", "message", 1)
            send_event("a", "message", 2)
        assert len(callbacks) == 2
        assert stored(log) == [(1, "1"), (2, "2")]
    assert not connection.in_atomic_block
    assert stored(log) == [(1, "1"), (2, "2")]
