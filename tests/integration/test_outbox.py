"""An event belongs to the transaction that it is sent in."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading

import pytest
from django.db import connection, transaction
from django.test import TestCase

from django_eventstream import (
    asend_event,
    asend_events,
    get_current_event_id,
    outbox,
    send_event,
    send_events,
)
from django_eventstream.backends import get_storage
from django_eventstream.events import Event
from django_eventstream.exceptions import PublishError, StorageUnavailableError
from django_eventstream.models import Event as Row
from django_eventstream.publishers.base import Publisher
from django_eventstream.storage.base import NUMBERED_BYTES, NUMBERED_EVENTS
from tests.services.deadline import wait_until

REFUSED = "the proxy is down"


class Recorder(Publisher):
    """Holds connections that nobody has: remembers what it was told, or refuses it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int | None, str]] = []
        self.waited: list[bool] = []
        self.refuses = False

    def publish(self, events, *, wait=False) -> None:
        assert not connection.in_atomic_block or connection.savepoint_ids
        self.waited.append(wait)
        if self.refuses:
            if wait:
                raise PublishError(REFUSED)
            return
        self.told += [(event.channel, event.id, event.data) for event in events]


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(outbox, "get_publishers", lambda: (recorder,))
    return recorder


def stored(channel: str = "a") -> list[tuple[int, str]]:
    return [(event.id, event.data) for event in get_storage().read(channel, 0, 1_000)]


def test_outside_a_transaction_an_event_is_stored_and_announced_at_once(default_database, recorder):
    event = send_event("a", "message", {"n": 1})
    assert (event.id, event.data) == (1, '{"n": 1}')
    assert stored() == [(1, '{"n": 1}')]
    assert recorder.told == [("a", 1, '{"n": 1}')]


def test_inside_a_transaction_it_is_sent_by_the_commit(default_database, recorder):
    with transaction.atomic():
        assert send_event("a", "message", 1).id is None
        assert recorder.told == []
    assert stored() == [(1, "1")]
    assert recorder.told == [("a", 1, "1")]


def test_rolled_back_it_was_never_sent(default_database, recorder):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        raise_after_sending()
    send_event("a", "message", "next")
    assert stored() == [(1, '"next"')]
    assert recorder.told == [("a", 1, '"next"')]
    assert not Row.objects.filter(eid=None).exists()


def raise_after_sending():
    send_event("a", "message", "never")
    raise ZeroDivisionError


def test_a_rolled_back_savepoint_takes_its_events_along_and_leaves_the_others(
    default_database, recorder
):
    with transaction.atomic():
        send_event("a", "message", 1)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            raise_after_sending()
        with transaction.atomic():
            send_event("a", "message", 2)
    assert stored() == [(1, "1"), (2, "2")]
    assert recorder.told == [("a", 1, "1"), ("a", 2, "2")]


def test_a_savepoint_that_sent_alone_and_was_rolled_back_sends_nothing(default_database, recorder):
    with transaction.atomic(), pytest.raises(ZeroDivisionError), transaction.atomic():
        raise_after_sending()
    assert stored() == []
    assert recorder.told == []
    send_event("a", "message", 1)
    assert stored() == [(1, "1")]


def test_the_events_of_a_transaction_are_announced_in_one_batch_in_their_order(
    default_database, recorder
):
    with transaction.atomic():
        for n in range(20):
            send_event("ab"[n % 2], "message", n)
        send_events([("a", "message", "x"), ("b", "message", "y")])
    assert stored("a") == [(i, str(n)) for i, n in enumerate(range(0, 20, 2), 1)] + [(11, '"x"')]
    assert stored("b") == [(i, str(n)) for i, n in enumerate(range(1, 20, 2), 1)] + [(11, '"y"')]
    assert len(recorder.waited) == 2


def test_without_autocommit_the_next_look_sends_it_after_the_commit(default_database, recorder):
    transaction.set_autocommit(False)
    try:
        assert send_event("a", "message", 1).id is None
        transaction.commit()
        send_event("a", "message", 2)
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    assert recorder.told == []
    wait_until(outbox.relay_left_behind)
    assert stored() == [(1, "1")]
    assert recorder.told == [("a", 1, "1")]


def test_many_events_sent_without_autocommit_are_rolled_back_by_hand(default_database, recorder):
    transaction.set_autocommit(False)
    try:
        send_events([("a", "message", 1), ("b", "message", 2)])
        transaction.rollback()
        send_events([("a", "message", 3), ("b", "message", 4)])
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert wait_until(outbox.relay_left_behind) == 2
    assert sorted(recorder.told) == [("a", 1, "3"), ("b", 1, "4")]


def test_a_look_without_autocommit_sends_in_a_transaction_of_its_own(default_database, recorder):
    """Under WSGI nobody else looks: the events waited for ever."""
    leave_behind("left behind")
    wait_until(lambda: get_storage().get_position([]).unnumbered)
    transaction.set_autocommit(False)
    try:
        outbox.look(get_storage(), ["a"])
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    assert stored() == [(1, '"left behind"')]
    assert recorder.told == [("a", 1, '"left behind"')]


def test_atomic_with_autocommit_off_sends_once_autocommit_is_on(default_database, recorder):
    transaction.set_autocommit(False)
    try:
        with transaction.atomic():
            send_event("a", "message", 1)
        transaction.commit()
    finally:
        transaction.set_autocommit(True)
    assert recorder.told == [("a", 1, "1")]


def test_a_callback_of_the_commit_may_send(default_database, recorder):
    with transaction.atomic():
        send_event("a", "message", "in the transaction")
        transaction.on_commit(lambda: send_event("a", "message", "in a later callback"))
    assert stored() == [(1, '"in the transaction"'), (2, '"in a later callback"')]


def test_a_callback_that_runs_before_ours_does_not_overtake(default_database, recorder):
    """It sent outside a transaction, and got the id before the event sent first."""
    with transaction.atomic():
        transaction.on_commit(lambda: send_event("a", "message", "second"))
        send_event("a", "message", "first")
    assert stored() == [(1, '"first"'), (2, '"second"')]
    assert recorder.told == [("a", 1, '"first"'), ("a", 2, '"second"')]


def test_a_callback_that_opens_a_transaction_may_send(default_database, recorder):
    def send_in_a_transaction():
        with transaction.atomic():
            send_event("a", "message", "second")

    with transaction.atomic():
        transaction.on_commit(send_in_a_transaction)
        send_event("a", "message", "first")
    assert stored() == [(1, '"first"'), (2, '"second"')]


def test_what_a_dead_process_left_behind_is_sent_by_the_next_transaction(
    default_database, recorder
):
    leave_behind("left behind")
    with transaction.atomic():
        send_event("a", "message", "next")
    assert stored() == [(1, '"left behind"'), (2, '"next"')]
    assert recorder.told == [("a", 1, '"left behind"'), ("a", 2, '"next"')]


def leave_behind(data, channel="a"):
    """What a process that dies right after its commit leaves."""
    with transaction.atomic():
        get_storage().stage([Event(channel, "message", f'"{data}"')])


def test_what_was_left_behind_is_relayed_once(default_database, recorder):
    leave_behind(1, "a")
    leave_behind(2, "b")
    wait_until(lambda: len(get_storage().get_position([]).unnumbered) == 2)
    assert outbox.relay_left_behind() == 2
    assert outbox.relay_left_behind() == 0
    assert sorted(recorder.told) == [("a", 1, '"1"'), ("b", 1, '"2"')]


def test_very_many_events_that_were_left_behind_are_relayed_a_part_at_a_time(
    sqlite_only, recorder, monkeypatch
):
    """They were numbered, loaded and offered in one piece, and every stream stood still."""
    monkeypatch.setattr(outbox, "RELAYED_PAGES", 2)
    monkeypatch.setattr(outbox, "RELAYED_CHANNELS", 3)
    with sqlite_only.as_default():
        with transaction.atomic():
            events = [Event("a", "message", str(n)) for n in range(2 * NUMBERED_EVENTS + 1)]
            get_storage().stage([*events, *[Event(name, "message", "0") for name in "bcde"]])
        wait_until(lambda: len(get_storage().get_position([]).unnumbered) == 5)
        assert outbox.relay_left_behind() == 2 * NUMBERED_EVENTS
        assert outbox.relay("abcde") == 3
        assert outbox.relay_left_behind() == 2
        assert outbox.relay_left_behind() == 0
    sent = [data for channel, _, data in recorder.told if channel == "a"]
    assert sent == [event.data for event in events]


def test_a_large_transaction_is_numbered_to_its_end_by_who_commits_it(sqlite_only, recorder):
    with sqlite_only.as_default():
        with transaction.atomic():
            send_events([("a", "message", n) for n in range(NUMBERED_EVENTS + 1)])
        assert len(recorder.told) == NUMBERED_EVENTS + 1
        assert not get_storage().number("a")


def test_a_page_is_full_where_all_is_escaped_as_well(sqlite_only, recorder):
    """Of short texts the quotes decide. The rest waited, and what was sent next came before it."""
    text = "\U0001f4a5" * 68
    fitting = NUMBERED_BYTES // len(json.dumps(text)) + 1
    assert fitting < NUMBERED_EVENTS
    with sqlite_only.as_default():
        with transaction.atomic():
            send_events([Event("a", "message", text)] * (fitting + 1))
        assert len(recorder.told) == fitting + 1


def test_relays_at_the_same_time_send_an_event_once(default_database, recorder):
    for n in range(50):
        leave_behind(n)
    counts = []

    def relay():
        counts.append(outbox.relay(["a"]))
        connection.close()

    threads = [threading.Thread(target=relay) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 50
    assert recorder.told == [("a", n + 1, f'"{n}"') for n in range(50)]


def test_who_looks_within_a_transaction_gives_no_ids_that_could_be_rolled_back(
    default_database, recorder
):
    """They would be announced, and then be given to other events."""
    leave_behind("left behind")
    wait_until(lambda: get_storage().get_position([]).unnumbered)
    with transaction.atomic():
        assert outbox.look(get_storage(), ["a"]).ids == {"a": 0}
        transaction.set_rollback(True)
    assert recorder.told == []
    assert outbox.look(get_storage(), ["a"]).ids == {"a": 1}
    assert recorder.told == [("a", 1, '"left behind"')]


def test_a_process_that_sends_looks_for_what_others_left_behind_once_a_minute(
    default_database, recorder, monkeypatch
):
    leave_behind("of another process", "b")
    wait_until(lambda: get_storage().get_position([]).unnumbered)
    monkeypatch.setattr(outbox._Look, "due", 0.0)
    send_event("a", "message", 1)
    assert recorder.told == [("a", 1, "1"), ("b", 1, '"of another process"')]
    leave_behind("too soon", "b")
    wait_until(lambda: get_storage().get_position([]).unnumbered)
    send_event("a", "message", 2)
    assert recorder.told[2:] == [("a", 2, "2")]


def test_async_publish_false_waits_and_raises_though_the_event_is_stored(
    default_database, recorder
):
    recorder.refuses = True
    with pytest.raises(PublishError, match=REFUSED):
        send_event("a", "message", 1, async_publish=False)
    send_event("a", "message", 2)
    with pytest.raises(PublishError, match=REFUSED), transaction.atomic():
        send_event("a", "message", 3, async_publish=False)
    assert stored() == [(1, "1"), (2, "2"), (3, "3")]


@pytest.mark.parametrize("modes", [(True, False), (False, True)])
def test_one_send_of_a_transaction_that_waits_is_enough(default_database, recorder, modes):
    """The first send decided: `async_publish=False` of a later one was forgotten."""
    with transaction.atomic():
        for mode in modes:
            send_event("a", "message", mode, async_publish=mode)
    assert recorder.waited == [True]


def test_a_send_that_waits_for_a_lock_too_long_stores_nothing(sqlite_only, tmp_path, recorder):
    with sqlite_only.as_default():
        connection.ensure_connection()
        connection.cursor().execute("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(sqlite_only.settings["NAME"], isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailableError, match="locked"):
            send_event("a", "message", "never")
        other.rollback()
        other.close()
        assert send_event("a", "message", "first").id == 1
        assert recorder.told == [("a", 1, '"first"')]


def test_a_send_that_waits_for_a_lock_short_enough_succeeds(sqlite_only):
    with sqlite_only.as_default():
        other = sqlite3.connect(
            sqlite_only.settings["NAME"], isolation_level=None, check_same_thread=False
        )
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.3, other.rollback)
        release.start()
        assert send_event("a", "message", 1).id == 1
        release.join()
        other.close()


def test_events_that_cannot_be_numbered_now_come_before_whatever_the_thread_sends_next(
    sqlite_only, recorder, caplog
):
    with sqlite_only.as_default():
        other = sqlite3.connect(sqlite_only.settings["NAME"], isolation_level=None)
        with transaction.atomic():
            connection.cursor().execute("PRAGMA busy_timeout = 50")
            send_event("a", "message", "first")
            send_event("a", "message", "second")
            call_first_after_commit(lambda: other.execute("BEGIN IMMEDIATE"))
        assert "will be sent by the next relay" in caplog.text
        assert caplog.text.count("will be sent") == 1
        other.rollback()
        other.close()
        assert recorder.told == []
        assert send_event("a", "message", "third").id == 3
    assert [told[1:] for told in recorder.told] == [(1, '"first"'), (2, '"second"'), (3, '"third"')]


def test_whoever_waits_is_told_that_events_could_not_be_numbered(sqlite_only, recorder):
    with sqlite_only.as_default():
        other = sqlite3.connect(sqlite_only.settings["NAME"], isolation_level=None)
        connection.cursor().execute("PRAGMA busy_timeout = 50")
        with (
            pytest.raises(StorageUnavailableError, match="'a' are stored") as raised,
            transaction.atomic(),
        ):
            send_while_another_gets_ready_to_lock(other)
        other.rollback()
        other.close()
        assert raised.value.may_be_stored
        assert outbox.relay(["a"]) == 1


def send_while_another_gets_ready_to_lock(other):
    send_event("a", "message", "first", async_publish=False)
    call_first_after_commit(lambda: other.execute("BEGIN IMMEDIATE"))


def call_first_after_commit(callback):
    """Happens between the commit and all that follows it."""
    connection.run_on_commit.insert(0, (set(), callback, False))


def test_async_code_sends_with_the_async_twins(default_database):
    async def send():
        first = await asend_event("a", "message", 1)
        rest = await asend_events([("a", "message", 2), ("b", "message", 3)])
        return [first.id, *(event.id for event in rest)]

    assert asyncio.run(send()) == [1, 2, 1]
    assert get_current_event_id(["a", "b"]) == "a:2,b:1"


class InATestCase(TestCase):
    """As an application tests itself."""

    def test_events_are_sent_by_captured_callbacks(self):
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            send_event("a", "message", 1)
            assert stored() == []
        assert len(callbacks) == 1
        assert stored() == [(1, "1")]

    def test_events_of_the_other_tests_are_gone(self):
        assert stored() == []
        with self.captureOnCommitCallbacks(execute=True):
            send_event("a", "message", 1)
        assert stored() == [(1, "1")]

    def test_events_that_are_never_captured_stay_staged(self):
        send_event("a", "message", 1)
        assert stored() == []
        assert Row.objects.get().eid is None
