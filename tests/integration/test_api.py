"""The verbs that applications call: what they return, and what whoever misuses them reads."""

from __future__ import annotations

import logging

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import override_settings

from django_eventstream import (
    channel_permission_changed,
    get_current_event_id,
    housekeeping,
    outbox,
    send_event,
    send_events,
)
from django_eventstream.backends import get_storage
from django_eventstream.channelmanager import DefaultChannelManager
from django_eventstream.control import Disconnect, parse_disconnect
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.models import Event as Row
from django_eventstream.publishers.base import Publisher
from tests.services.databases import Database
from tests.services.deadline import wait_until
from tests.services.postgres import Postgres


class Recorder(Publisher):
    def __init__(self) -> None:
        self.told: list[Event] = []

    def publish(self, events, *, wait=False) -> None:
        self.told += events


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(outbox, "get_publishers", lambda: (recorder,))
    return recorder


@pytest.fixture
def log(sqlite_only):
    with sqlite_only.as_default():
        yield get_storage()


class User:
    is_authenticated = True

    def __init__(self, pk):
        self.pk = pk


class Managed(DefaultChannelManager):
    """Channels that begin with "loud" are not stored; user 1 may read nothing."""

    def is_channel_reliable(self, channel):
        return not channel.startswith("loud")

    def can_read_channel(self, user, channel):
        return user is not None and user.pk != 1


MANAGED = override_settings(EVENTSTREAM_CHANNELMANAGER_CLASS=f"{__name__}.Managed")


# Sending


def test_the_arguments_are_the_predecessors_by_position_too(log):
    event = send_event("a", "tick", '{"ready": 1}', [7, User("8")], False, False)
    assert event == Event("a", "tick", '{"ready": 1}', 1, frozenset({"7", "8"}))
    assert log.read("a", 0, 9) == [event]


def test_data_is_encoded_unless_it_is_ready(log):
    assert send_event("a", "t", {"x": [1, None]}).data == '{"x": [1, null]}'
    assert send_event("a", "t", "ready", json_encode=False).data == "ready"
    assert send_event("a", "t", "text").data == '"text"'


def test_the_empty_type_is_message(log):
    assert send_event("a", "", 1).type == "message"
    assert log.read("a", 0, 1)[0].type == "message"


def test_events_and_tuples_may_be_sent_together(log):
    sent = send_events([Event("a", "t", "ready"), ("b", "t", {"x": 1}), ["a", "t", 2]])
    assert [(e.channel, e.data, e.id) for e in sent] == [
        ("a", "ready", 1),
        ("b", '{"x": 1}', 1),
        ("a", "2", 2),
    ]
    assert send_events([]) == []
    assert [event.id for event in send_events(("a", "t", n) for n in range(2))] == [3, 4]


BAD_CALLS = [
    (lambda: send_event("", "t", 1), ValueError, "channel must not be empty"),
    (lambda: send_event(None, "t", 1), TypeError, "channel must be str, not NoneType"),
    (lambda: send_event("a\x00", "t", 1), ValueError, "channel contains a NUL character"),
    (
        lambda: send_event("x" * 256, "t", 1),
        ValueError,
        "channel has 256 characters; at most 255 are possible",
    ),
    (
        lambda: send_event(CONTROL_CHANNEL, "t", 1),
        ValueError,
        "channel '__eventstream__' is reserved",
    ),
    (lambda: send_event("a", None, 1), TypeError, "event_type must be str, not NoneType"),
    (lambda: send_event("a", "x\ny", 1), ValueError, r"event_type 'x\ny' contains a line end"),
    (
        lambda: send_event("a", "keep-alive", 1),
        ValueError,
        "event_type 'keep-alive' is reserved for the stream itself",
    ),
    (
        lambda: send_event("a", "t", object),
        TypeError,
        "data cannot be encoded as JSON: Object of type type is not JSON serializable",
    ),
    (
        lambda: send_event("a", "t", {"a": 1}, json_encode=False),
        TypeError,
        "data must be str once encoded, not dict",
    ),
    (
        lambda: send_event("a", "t", "\ud800", json_encode=False),
        ValueError,
        "data contains a lone surrogate at 0, which UTF-8 cannot carry",
    ),
    (
        lambda: send_event("a", "t", 1, skip_user_ids="12"),
        TypeError,
        "skip_user_ids must be an iterable of primary keys, such as [user.pk], not str",
    ),
    (
        lambda: send_event("a", "t", 1, skip_user_ids=12),
        TypeError,
        "skip_user_ids must be an iterable of primary keys, such as [user.pk], not int",
    ),
    (
        lambda: send_events([("a", "t", 1), ("a", "t")]),
        TypeError,
        "send_events() takes Events and (channel, event_type, data) tuples, not ('a', 't')",
    ),
    (
        lambda: send_events(["abc"]),
        TypeError,
        "send_events() takes Events and (channel, event_type, data) tuples, not 'abc'",
    ),
    (
        lambda: send_events([("a", "t", 1), Event("a", "t", "x", 5)]),
        ValueError,
        "an event that is sent cannot bring its own id: the log gives it",
    ),
    (
        lambda: send_events([("a", "t", 1), ("b", "stream-open", 1)]),
        ValueError,
        "event_type 'stream-open' is reserved for the stream itself",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD_CALLS, ids=[text for *_, text in BAD_CALLS])
def test_what_cannot_be_sent_is_told_why_and_nothing_is_stored(log, recorder, call, error, text):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == text
    assert not Row.objects.exists()
    assert recorder.told == []


@MANAGED
def test_events_of_unreliable_channels_are_announced_and_not_stored(log, recorder):
    assert send_event("loud", "t", 1).id is None
    sent = send_events([("loud", "t", 2), ("a", "t", 3), ("loud", "t", 4)])
    assert [event.id for event in sent] == [None, 1, None]
    with transaction.atomic():
        send_event("loud", "t", 5)
        assert len(recorder.told) == 4
    assert sorted(event.data for event in recorder.told) == ["1", "2", "3", "4", "5"]
    assert Row.objects.count() == 1


@MANAGED
def test_events_of_unreliable_channels_are_not_announced_after_a_rollback(log, recorder):
    with transaction.atomic():
        send_event("loud", "t", 1)
        transaction.set_rollback(True)
    assert recorder.told == []


@override_settings(EVENTSTREAM_STORAGE_CLASS=None)
def test_without_storage_nothing_is_stored_and_everything_announced(log, recorder):
    assert send_event("a", "t", 1).id is None
    assert [event.data for event in recorder.told] == ["1"]
    assert outbox.relay_left_behind() == 0
    assert not Row.objects.exists()
    with pytest.raises(ValueError, match="EVENTSTREAM_STORAGE_CLASS is None"):
        get_current_event_id(["a"])


def test_send_events_is_all_or_nothing(default_database):
    Row.objects.create(channel="b", type="t", data='"in the way"', eid=2)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_eventstream_eventcounter (name, value, updated)"
            " VALUES ('b', 0, '2026-01-01 00:00:00')"
        )
    with pytest.raises(StorageUnavailableError):
        send_events([("a", "t", 1), ("b", "t", 1), ("b", "t", 2)])
    assert get_current_event_id(["a", "b"]) == "a:0,b:0"
    assert Row.objects.count() == 1


# Positions


def test_the_current_event_id_is_a_cursor_of_all_channels_in_their_order(log):
    send_events([("a", "t", 1), ("b:ä", "t", 1), ("a", "t", 2)])
    assert get_current_event_id(["b:ä", "a", "none"]) == "b%3A%C3%A4:1,a:2,none:0"
    epoch = log.begin_epoch()
    assert get_current_event_id(["a"]) == f"a:2,:{epoch}"


@pytest.mark.parametrize("channels", ["abc", [""], [1], ["x" * 256]])
def test_the_current_event_id_of_no_channels_is_refused(log, channels):
    with pytest.raises((TypeError, ValueError), match="^channel"):
        get_current_event_id(channels)


# Permissions


@MANAGED
@pytest.mark.parametrize(("user", "key"), [(User(1), "1"), (None, None)])
def test_a_permission_that_was_taken_away_is_told_to_everybody(log, recorder, user, key):
    with transaction.atomic():
        channel_permission_changed(user, "a")
        assert recorder.told == []
    [event] = log.read(CONTROL_CHANNEL, 0, 9)
    assert parse_disconnect(event) == Disconnect(key, "a")
    assert recorder.told == [event]


@MANAGED
def test_a_user_without_a_key_whose_streams_cannot_be_found_is_refused(log, recorder, monkeypatch):
    """`user.delete()` takes the key away: in silence, the streams of the user would go on."""
    monkeypatch.setattr(Managed, "can_read_channel", lambda self, user, channel: False)
    with pytest.raises(ValueError, match="before deleting"):
        channel_permission_changed(User(None), "a")
    assert recorder.told == []


@MANAGED
def test_a_permission_that_is_still_there_is_no_news(log, recorder):
    channel_permission_changed(User(2), "a")
    assert recorder.told == []


@MANAGED
def test_a_permission_that_is_rolled_back_was_not_taken_away(log, recorder):
    with transaction.atomic():
        channel_permission_changed(User(1), "a")
        transaction.set_rollback(True)
    assert recorder.told == []


def test_another_message_of_the_control_channel_is_no_disconnect():
    assert parse_disconnect(Event(CONTROL_CHANNEL, "something else", "{}")) is None


# A log that cannot be used


def test_tables_that_are_missing_are_told_with_the_way_out(default_database):
    call_command("migrate", "django_eventstream", "zero", verbosity=0)
    try:
        for call in (
            lambda: send_event("a", "t", 1),
            lambda: get_current_event_id(["a"]),
            lambda: get_storage().read("a", 0, 9),
            outbox.relay_left_behind,
        ):
            with pytest.raises(StorageUnavailableError, match='was "migrate" run'):
                call()
        with pytest.raises(StorageUnavailableError), transaction.atomic():
            send_event("a", "t", 1)
    finally:
        call_command("migrate", "django_eventstream", verbosity=0)
    assert send_event("a", "t", 1).id == 1


def test_a_database_that_goes_away_is_told_and_used_again_when_it_is_back(django_db_blocker):
    """Outside of requests nobody closed the broken connection: every later send failed."""
    with Postgres() as server, django_db_blocker.unblock():
        server.create_database("mine")
        database = Database("mine", server.django_settings("mine"), server)
        database.migrate()
        with database.as_default():
            assert send_event("a", "t", 1).id == 1
            server.kill()
            for _ in range(2):
                with pytest.raises(StorageUnavailableError, match="cannot be used"):
                    send_event("a", "t", "never")
            with pytest.raises(StorageUnavailableError):
                get_current_event_id(["a"])
            server.start()
            assert send_event("a", "t", 2).id == 2
            server.kill()
            server.start()
            with pytest.raises(StorageUnavailableError):
                send_event("a", "t", "never")
            assert send_event("a", "t", 3).id == 3
            assert [event.data for event in get_storage().read("a", 0, 9)] == ["1", "2", "3"]
        connections[database.alias].close()
        del connections.settings[database.alias]


def test_a_channel_manager_that_raises_while_trimming_harms_no_send(log, monkeypatch, caplog):
    class Broken(DefaultChannelManager):
        def get_retention(self, channel):
            raise ZeroDivisionError

    monkeypatch.setattr("django_eventstream.backends.get_channel_manager", Broken)
    monkeypatch.setattr(housekeeping, "is_under_test", lambda: False)
    keeper = housekeeping.Housekeeper()
    keeper._due = 0.0
    monkeypatch.setattr(housekeeping, "housekeeper", keeper)
    with caplog.at_level(logging.WARNING):
        assert send_event("a", "t", 1).id == 1
        wait_until(lambda: keeper._thread is None)
    assert (
        "All events of 'a' are kept: get_retention() of the channel manager failed" in caplog.text
    )
