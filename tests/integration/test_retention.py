"""Old events go, a little at a time, and no send pays for it."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_eventstream import retention, send_event, send_events
from django_eventstream.backends import get_storage
from django_eventstream.channelmanager import DefaultChannelManager, Retention
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.models import Event as Row
from django_eventstream.outbox import relay_left_behind
from django_eventstream.retention import BATCH_SIZE, PAUSE_SECONDS, Housekeeper


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retention, "time", clock)
    monkeypatch.setattr(retention, "_housekeeper", Housekeeper())
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


def test_a_send_removes_nothing_before_the_pause_is_over_and_one_batch_after_it(
    default_database, clock
):
    fill("a", BATCH_SIZE + 5, days=2)
    send_event("a", "message", "x")
    assert len(kept("a")) == BATCH_SIZE + 6
    clock.now += PAUSE_SECONDS
    send_event("a", "message", "x")
    assert len(kept("a")) == 7
    send_event("a", "message", "x")
    assert len(kept("a")) == 8


def test_sending_by_hand_has_old_events_removed_by_those_that_sequence(default_database, clock):
    """A project that commits by hand has no other sends, and its log grew for ever."""
    fill("a", 3, days=2)
    clock.now += PAUSE_SECONDS
    get_storage().stage([Event("a", "message", "new")])
    Row.objects.filter(eid=None).update(created=timezone.now() - timedelta(seconds=5))
    assert relay_left_behind() == 1
    assert kept("a") == [4]


def test_more_than_a_batch_goes_with_half_as_many_sends(default_database, clock):
    fill("a", 2 * BATCH_SIZE + 5, days=2)
    clock.now += PAUSE_SECONDS
    send_event("a", "message", "x")
    assert len(kept("a")) == BATCH_SIZE + 6
    send_events([("a", "message", n) for n in range(BATCH_SIZE // 2 - 1)])
    assert len(kept("a")) == BATCH_SIZE + 5 + BATCH_SIZE // 2
    send_event("a", "message", "x")
    assert len(kept("a")) == 6 + BATCH_SIZE // 2


@pytest.mark.parametrize("expired", [0, 3_000])
def test_trimming_costs_three_questions_a_minute_and_six_statements_where_much_goes(
    default_database, clock, expired
):
    fill("a", expired, days=2)
    with CaptureQueriesContext(connection) as captured:
        for _ in range(600):
            clock.now += 0.25
            send_event("a", "message", "x")
    of_trimming = [
        query["sql"]
        for query in captured
        if re.match(r"\s*(SELECT|DELETE)", query["sql"])
        and not re.search(r"pg_notify|MAX\(eid\)", query["sql"])
    ]
    minutes, batches = int(600 * 0.25 // PAUSE_SECONDS), 600 // (BATCH_SIZE // 2)
    assert len(of_trimming) <= (6 * (minutes + batches) if expired else 3 * minutes)
    assert len(kept("a")) == 600 + max(0, expired - minutes * BATCH_SIZE)


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
    clock.now += PAUSE_SECONDS
    for _ in range(2 * BATCH_SIZE):
        send_event("a", "message", "x")
    assert list(Row.objects.exclude(channel="a")) == []
    assert len(kept("a")) == 2 * BATCH_SIZE


@override_settings(EVENTSTREAM_RETENTION_SECONDS=None, EVENTSTREAM_RETENTION_COUNT=2)
def test_a_limit_by_count_holds_for_them_too(default_database, clock):
    fill_users(3 * BATCH_SIZE, days=2)
    clock.now += PAUSE_SECONDS
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
    clock.now += PAUSE_SECONDS
    for _ in range(2 * BATCH_SIZE):
        send_event("a", "message", "x")
    assert kept("quiet") == []
    assert kept("unknown") == [1]
    assert "All events of 'unknown' are kept: get_retention()" in caplog.text
    assert Row.objects.filter(channel__startswith="user-").count() == 2 * BATCH_SIZE // 3 * 3


def test_where_nothing_is_old_a_look_and_the_time_a_minute_are_all(default_database, clock):
    fill_users(3 * BATCH_SIZE, hours=2)
    clock.now += PAUSE_SECONDS
    with CaptureQueriesContext(connection) as captured:
        for _ in range(BATCH_SIZE):
            send_event("a", "message", "x")
    looks = [query for query in captured if re.match(r"\s*SELECT", query["sql"])]
    assert len([query for query in looks if "pg_notify" not in query["sql"]]) <= 4


def test_every_channel_has_its_turn(clock):
    keeper = Housekeeper()
    turns = []
    for _ in range(20):
        for channel, count in {"busy": 5, "medium": 3, "quiet": 1}.items():
            clock.now += PAUSE_SECONDS / 3
            turns.append(keeper.note([Event(channel, "t", "x")] * count, clock.now))
    assert {"busy", "medium", "quiet"} <= set(turns)


def test_what_it_remembers_is_bounded(clock):
    keeper = Housekeeper()
    for number in range(retention.CHANNELS_REMEMBERED * 2):
        keeper.note([Event(f"c{number}", "t", "x")], clock.now)
    assert len(keeper._sent) == retention.CHANNELS_REMEMBERED
    assert keeper.note([Event("new", "t", "x")], clock.now + PAUSE_SECONDS) is not None
