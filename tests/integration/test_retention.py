"""Old events go, a little at a time, and no send pays for it."""

from __future__ import annotations

import re
import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_eventstream import housekeeping, retention, send_event, send_events
from django_eventstream.backends import get_storage
from django_eventstream.channelmanager import DefaultChannelManager, Retention
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.housekeeping import PAUSE_SECONDS, Housekeeper
from django_eventstream.models import Event as Row
from django_eventstream.models import Lease
from django_eventstream.outbox import look, relay_left_behind
from django_eventstream.retention import BATCH_SIZE
from django_eventstream.storage.base import SWEEP
from tests.services.python import run_python


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def pass_on(self, seconds: float) -> None:
        """Move this clock on, and that of the database, as far as the lease goes."""
        self.now += seconds
        for lease in Lease.objects.filter(name=SWEEP):
            lease.until -= timedelta(seconds=seconds)
            lease.save()


class Waiting(Housekeeper):
    """One whose sweeps are over when a send returns, and that has no thread for the exit."""

    def __init__(self) -> None:
        super().__init__()
        self._has_begun = True

    def after_send(self, events) -> None:
        super().after_send(events)
        self.wait()

    def wait(self) -> None:
        if (thread := self._thread) is not None:
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(housekeeping, "time", clock)
    monkeypatch.setattr(housekeeping, "is_under_test", lambda: False)
    monkeypatch.setattr(housekeeping, "housekeeper", Waiting())
    monkeypatch.setattr("django_eventstream.outbox._Look.due", float("inf"))
    return clock


def fill(channel: str, count: int, **ago: float) -> None:
    get_storage().append([Event(channel, "message", str(n)) for n in range(count)])
    Row.objects.filter(channel=channel).update(created=timezone.now() - timedelta(**ago))


def kept(channel: str) -> list[int]:
    return list(Row.objects.filter(channel=channel).order_by("eid").values_list("eid", flat=True))


class ByChannel(DefaultChannelManager):
    def get_retention(self, channel):
        return {
            "last three": Retention(seconds=None, count=3),
            "an hour": Retention(seconds=3_600, count=None),
            "for ever": Retention(seconds=None, count=None),
        }.get(channel, super().get_retention(channel))


BY_CHANNEL = override_settings(EVENTSTREAM_CHANNELMANAGER_CLASS=f"{__name__}.ByChannel")


@BY_CHANNEL
def test_each_channel_keeps_what_its_manager_says(default_database):
    for channel in ("last three", "an hour", "for ever", "a day by default"):
        fill(channel, 5, hours=2)
        list(retention.trim(get_storage(), channel))
    assert kept("last three") == [3, 4, 5]
    assert kept("an hour") == []
    assert kept("for ever") == kept("a day by default") == [1, 2, 3, 4, 5]


@override_settings(EVENTSTREAM_RETENTION_SECONDS=None, EVENTSTREAM_RETENTION_COUNT=2)
def test_the_settings_are_the_default(default_database):
    fill("a", 5, days=365)
    assert list(retention.trim(get_storage(), "a")) == [3]
    assert kept("a") == [4, 5]


def test_the_log_keeps_what_it_told_other_processes_for_an_hour(default_database):
    fill(CONTROL_CHANNEL, 2, minutes=59)
    assert list(retention.trim(get_storage(), CONTROL_CHANNEL)) == []
    fill(CONTROL_CHANNEL, 1, minutes=61)
    assert list(retention.trim(get_storage(), CONTROL_CHANNEL)) == [3]


def test_nothing_is_removed_before_the_pause_is_over_and_all_batches_after_it(
    default_database, clock
):
    fill("a", 2 * BATCH_SIZE + 5, days=2)
    send_event("a", "message", "x")
    assert len(kept("a")) == 2 * BATCH_SIZE + 6
    clock.pass_on(PAUSE_SECONDS)
    send_event("a", "message", "x")
    assert len(kept("a")) == 2
    fill("b", 5, days=2)
    send_event("a", "message", "x")
    assert len(kept("b")) == 5


def test_no_sender_waits_for_a_sweep(default_database, clock, monkeypatch):
    """It was made by the sender: 0.3 s where the tables do not fit into memory."""
    keeper = Housekeeper()
    keeper._has_begun = True
    monkeypatch.setattr(housekeeping, "housekeeper", keeper)
    began, go_on = threading.Event(), threading.Event()

    def sweep(*args):
        began.set()
        assert go_on.wait(60)
        return retention.Swept()

    monkeypatch.setattr(housekeeping, "sweep", sweep)
    clock.pass_on(PAUSE_SECONDS)
    send_event("a", "message", 1)
    assert began.wait(60)
    clock.pass_on(PAUSE_SECONDS)
    send_event("a", "message", 2)
    assert [thread.name for thread in threading.enumerate()].count("eventstream-sweep") == 1
    go_on.set()
    keeper._thread.join(60)
    assert len(kept("a")) == 2


def test_of_all_processes_one_sweeps_and_the_next_goes_on_where_it_was(
    default_database, clock, monkeypatch
):
    monkeypatch.setattr(retention, "MOST_BATCHES", 1)
    fill_users(3 * BATCH_SIZE, days=2)
    send_event("a", "message", "x")
    clock.pass_on(PAUSE_SECONDS)
    processes = [Waiting() for _ in range(5)]
    clock.now += PAUSE_SECONDS
    left = []
    for process in processes[:4]:
        # While there is more, the next one goes on at once.
        process.after_send([Event("a", "message", "x")])
        left.append(Row.objects.count() - 1)
    assert left == [2 * BATCH_SIZE, BATCH_SIZE, 0, 0]
    fill("b", 5, days=2)
    processes[4].after_send([Event("a", "message", "x")])
    assert len(kept("b")) == 5


SEND_AND_END = """
import sys
from django_eventstream import send_events
send_events([("a", "message", number) for number in range(int(sys.argv[1]))])
"""


def test_processes_that_send_and_end_remove_what_is_old(default_database):
    """Nobody did where all that send are cron jobs: the first sweep was for the second minute."""
    fill("quiet", 2 * BATCH_SIZE + 5, days=2)
    run_python(SEND_AND_END, "3", database=default_database.settings)
    assert kept("quiet") == []
    assert len(kept("a")) == 3
    fill("quiet", 5, days=2)
    run_python(SEND_AND_END, "3", database=default_database.settings)
    assert len(kept("quiet")) == 5, "once a minute is enough"


def test_a_process_that_only_holds_streams_removes_what_is_old(default_database, clock):
    fill("quiet", 5, days=2)
    clock.pass_on(PAUSE_SECONDS)
    look(get_storage(), ["quiet"])
    housekeeping.housekeeper.wait()
    assert kept("quiet") == []


def test_sending_by_hand_has_old_events_removed_by_those_that_sequence(default_database, clock):
    """A project that commits by hand has no other sends, and its log grew for ever."""
    fill("a", 3, days=2)
    clock.pass_on(PAUSE_SECONDS)
    get_storage().stage([Event("a", "message", "new")])
    Row.objects.filter(eid=None).update(created=timezone.now() - timedelta(seconds=5))
    assert relay_left_behind() == 1
    assert kept("a") == [4]


def test_more_than_a_sweep_goes_with_half_as_many_sends(default_database, clock, monkeypatch):
    monkeypatch.setattr(retention, "MOST_BATCHES", 1)
    fill("a", 2 * BATCH_SIZE + 5, days=2)
    clock.pass_on(PAUSE_SECONDS)
    send_event("a", "message", "x")
    assert len(kept("a")) == BATCH_SIZE + 6
    send_events([("a", "message", n) for n in range(BATCH_SIZE // 2 - 1)])
    assert len(kept("a")) == BATCH_SIZE + 5 + BATCH_SIZE // 2
    send_event("a", "message", "x")
    assert len(kept("a")) == 6 + BATCH_SIZE // 2


def test_a_sender_asks_the_database_nothing_for_the_sweeps(default_database, clock):
    fill("a", 3_000, days=2)
    with CaptureQueriesContext(connection) as captured:
        for _ in range(300):
            get_storage().append([Event("a", "message", "x")])
    before = len(captured)
    with CaptureQueriesContext(connection) as captured:
        for _ in range(300):
            clock.now += 0.25
            send_event("a", "message", "x")
    assert len(captured) == before
    assert len(kept("a")) == 600


@pytest.mark.parametrize("expired", [0, 5_000])
def test_a_sweep_costs_three_statements_a_batch_and_is_bounded(
    default_database, monkeypatch, expired
):
    monkeypatch.setattr(retention, "MOST_BATCHES", 3)
    fill("a", expired, days=2)
    fill("b", 10, hours=1)
    with CaptureQueriesContext(connection) as captured:
        swept = retention.sweep(get_storage(), 0, "b")
    found = [query for query in captured if re.match(r"\s*(SELECT|DELETE)", query["sql"])]
    assert len(found) <= (1 + 3 * 3 if expired else 3)
    assert len(kept("a")) == max(0, expired - 3 * BATCH_SIZE)
    assert swept.has_more == bool(expired)


def fill_users(count: int, **ago: float) -> None:
    """Three events for each of many channels, to which nobody sends any more."""
    users = [Event(f"user-{n}", "message", str(n)) for n in range(count // 3)]
    get_storage().append(users * 3)
    Row.objects.update(created=timezone.now() - timedelta(**ago))


def test_channels_that_nobody_sends_to_any_more_are_kept_within_their_limits(
    default_database, clock
):
    """A process looked at one channel a minute: those of a thousand users outgrew their age."""
    fill_users(3 * BATCH_SIZE, days=2)
    clock.pass_on(PAUSE_SECONDS)
    for _ in range(2 * BATCH_SIZE):
        send_event("a", "message", "x")
    assert list(Row.objects.exclude(channel="a")) == []
    assert len(kept("a")) == 2 * BATCH_SIZE


@override_settings(EVENTSTREAM_RETENTION_SECONDS=None, EVENTSTREAM_RETENTION_COUNT=2)
def test_a_limit_by_count_holds_for_them_too(default_database, clock):
    fill_users(3 * BATCH_SIZE, days=2)
    clock.pass_on(PAUSE_SECONDS)
    for _ in range(2 * BATCH_SIZE):
        send_event("a", "message", "x")
    assert Row.objects.exclude(channel="a").count() == 2 * BATCH_SIZE
    assert kept("user-7") == [2, 3]


class Kept(DefaultChannelManager):
    def get_retention(self, channel):
        if channel.startswith("user-"):
            return Retention(seconds=None, count=None)
        if channel == "unknown":
            raise KeyError(channel)
        return super().get_retention(channel)


@override_settings(EVENTSTREAM_CHANNELMANAGER_CLASS=f"{__name__}.Kept")
def test_what_is_kept_for_ever_is_passed_by(default_database, clock, caplog):
    fill_users(2 * BATCH_SIZE, days=2)
    fill("unknown", 1, days=2)
    fill("quiet", 5, days=2)
    clock.pass_on(PAUSE_SECONDS)
    for _ in range(2 * BATCH_SIZE):
        send_event("a", "message", "x")
    assert kept("quiet") == []
    assert kept("unknown") == [1]
    assert "All events of 'unknown' are kept: get_retention()" in caplog.text
    assert Row.objects.filter(channel__startswith="user-").count() == 2 * BATCH_SIZE // 3 * 3


@BY_CHANNEL
@pytest.mark.parametrize("seconds", [None, 24 * 3_600])
def test_what_is_kept_for_less_than_others_goes_before_them(sqlite_only, clock, seconds):
    """No sweep came behind a thousand events that were younger than what others keep."""
    settings = {"RETENTION_SECONDS": seconds, "RETENTION_COUNT": None}
    with (
        override_settings(**{f"EVENTSTREAM_{name}": value for name, value in settings.items()}),
        sqlite_only.as_default(),
    ):
        fill("others", 2 * BATCH_SIZE, hours=20)
        fill("an hour", 5, hours=2)
        clock.pass_on(PAUSE_SECONDS)
        for _ in range(3):
            assert kept("an hour")
            send_events([("a", "message", n) for n in range(BATCH_SIZE // 2)])
        assert kept("an hour") == []
        oldest = Row.objects.filter(channel="others", eid__lte=5)
        oldest.update(channel="an hour", eid=F("eid") + 5)
        send_events([("a", "message", n) for n in range(BATCH_SIZE // 2)])
        assert kept("an hour") == [], "the oldest have their turn each time"


@override_settings(EVENTSTREAM_CHANNELMANAGER_CLASS=f"{__name__}.Kept")
def test_a_busy_channel_of_which_nobody_knows_what_is_kept_holds_up_no_sweep(sqlite_only, clock):
    """What the sweep had looked at was forgotten: it never came behind what is kept for ever."""
    with sqlite_only.as_default():
        fill_users(2 * BATCH_SIZE, days=2)
        fill("quiet", 5, days=2)
        for _ in range(4):
            clock.pass_on(PAUSE_SECONDS)
            send_event("unknown", "message", "x")
        assert kept("quiet") == []
        assert kept("unknown") == [1, 2, 3, 4]


def test_every_channel_has_its_turn():
    keeper = Housekeeper()
    turns = []
    for _ in range(20):
        for channel, count in {"busy": 5, "medium": 3, "quiet": 1}.items():
            keeper._count([Event(channel, "t", "x")] * count)
            turns.append(keeper._next_channel())
    assert {"busy", "medium", "quiet"} <= set(turns)


def test_what_it_remembers_is_bounded():
    keeper = Housekeeper()
    for number in range(housekeeping.CHANNELS_REMEMBERED * 2):
        keeper._count([Event(f"c{number}", "t", "x")])
    assert len(keeper._sent) == housekeeping.CHANNELS_REMEMBERED
    assert keeper._next_channel() is not None
