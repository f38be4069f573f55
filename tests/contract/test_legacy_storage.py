"""A storage class that was written for django-eventstream 5.3.4 goes on working."""

from __future__ import annotations

import json
import warnings

import pytest
from django.core.checks import run_checks
from django.db import transaction

from django_eventstream import EventRequest, get_current_event_id, get_events, send_event, utils
from django_eventstream.backends import get_storage
from django_eventstream.catchup import read_oldest
from django_eventstream.checks.messages import TAG
from django_eventstream.events import Event
from django_eventstream.exceptions import HistoryGoneError, StorageUnavailableError
from django_eventstream.storage import DjangoModelStorage, EventDoesNotExist
from django_eventstream.storage.legacy import LegacyStorage
from tests.legacy_storage import DIRECTORY, DictStorage, FileStorage
from tests.services.python import run_python
from tests.sse_client import StreamClient, assert_sequence, numbered

PATH = "tests.legacy_storage.FileStorage"


class HalfOldStorage(DjangoModelStorage):
    def append_event(self, channel, event_type, data):
        raise AssertionError("nothing calls it")


@pytest.fixture
def log(monkeypatch, tmp_path, settings, sqlite_only) -> LegacyStorage:
    monkeypatch.setenv(DIRECTORY, str(tmp_path))
    settings.EVENTSTREAM_STORAGE_CLASS = PATH
    with sqlite_only.as_default():
        with pytest.warns(DeprecationWarning, match=PATH):
            storage = get_storage()
        yield storage


def events(*texts: str) -> list[Event]:
    return [Event("user:5", "message", text) for text in texts]


def ids(found: list[Event]) -> list[int | None]:
    return [event.id for event in found]


def test_1_3_the_project_is_warned_once(log):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert get_storage() is log
        send_event("a", "message", 1)
    assert caught == []


def test_1_3_events_are_stored_and_read_by_the_old_class(log):
    assert send_event("user:5", "message", {"n": 1}).id == 1
    assert send_event("user:5", "update", "two", json_encode=False).id == 2
    old = FileStorage()
    assert [(e.id, e.type, e.data) for e in old.get_events("user:5", 0)] == [
        (1, "message", '{"n": 1}'),
        (2, "update", "two"),
    ]
    assert get_current_event_id(["user:5", "b"]) == "user%3A5:2,b:0"
    request = EventRequest()
    request.channels, request.channel_last_ids = {"user:5"}, {"user:5": "1"}
    assert [e.data for e in get_events(request).channel_items["user:5"]] == ["two"]


def test_1_3_get_storage_of_utils_returns_the_old_class(log):
    with pytest.warns(DeprecationWarning, match="get_storage"):
        assert isinstance(utils.get_storage(), FileStorage)


def test_it_keeps_what_it_can_of_the_contract(log):
    assert ids(log.append(events("1", "2", "3"))) == [1, 2, 3]
    assert ids(log.read("user:5", 1, 1)) == [2]
    assert ids(log.read("user:5", 0, 100, max_bytes=1)) == [1]
    assert ids(log.read("user:5", 0, 100, max_bytes=2)) == [1, 2]
    assert log.read("user:5", 3, 100) == []
    assert log.read("unknown", 0, 100) == []
    assert log.get_position(["user:5", "b"]).ids == {"user:5": 3, "b": 0}
    assert log.trim("user:5", None, 0, 100) == 0


def test_what_the_old_class_removed_is_gone_and_told(log):
    log.append(events(*map(str, range(150))))
    assert ids(log.read("user:5", 50, 3)) == [51, 52, 53]
    with pytest.raises(HistoryGoneError) as raised:
        log.read("user:5", 49, 3)
    assert raised.value.oldest == 151


def test_a_position_ahead_of_the_old_class_is_no_history_that_is_gone(log):
    log.append(events("1"))
    assert log.read("user:5", 5, 3) == []


def test_an_event_of_a_transaction_is_stored_after_the_commit_or_never(log):
    with transaction.atomic():
        assert send_event("a", "message", 1).id is None
        assert log.get_position(["a"]).ids == {"a": 0}
    with transaction.atomic():
        send_event("a", "message", 2)
        transaction.set_rollback(True)
    assert [event.data for event in log.read("a", 0, 9)] == ["1"]


def test_whatever_an_old_class_raises_is_an_outage(settings, monkeypatch, tmp_path, log):
    settings.EVENTSTREAM_STORAGE_CLASS = "tests.legacy_storage.BrokenStorage"
    with pytest.warns(DeprecationWarning, match="BrokenStorage"):
        broken = get_storage()
    with pytest.raises(StorageUnavailableError, match="away"):
        broken.get_position(["a"])
    with pytest.raises(StorageUnavailableError, match="away"):
        send_event("a", "message", 1)


def test_an_old_class_needs_no_base_and_may_have_ids_as_text():
    storage = LegacyStorage(DictStorage())
    assert ids(storage.append(events("1", "2"))) == [1, 2]
    [event] = storage.read("user:5", 1, 9)
    assert (event.id, json.loads(event.data)) == (2, {"text": "2"})
    assert storage.get_position(["user:5"]).ids == {"user:5": 2}


def test_a_hole_is_told_and_what_is_before_it_delivered():
    old = DictStorage()
    storage = LegacyStorage(old)
    storage.append(events("1", "2", "3"))
    del old.events["user:5"][1]
    assert ids(storage.read("user:5", 0, 9)) == [1]
    with pytest.raises(HistoryGoneError) as raised:
        storage.read("user:5", 1, 9)
    assert raised.value.oldest == 3


class TrimmingStorage(DictStorage):
    """Looks for the very event, but for 0, as those of 5.3.4 did."""

    oldest = 1

    def get_events(self, channel, last_id, limit=100):
        events = self.events.get(channel, [])
        if last_id and not self.oldest <= last_id:
            raise EventDoesNotExist("No such event", len(events))
        return events[max(last_id, self.oldest - 1) :][:limit]


def test_the_beginning_is_the_oldest_event_that_the_old_class_has():
    old = TrimmingStorage()
    storage = LegacyStorage(old)
    storage.append(events(*"12345"))
    old.oldest = 3
    assert read_oldest(storage, "user:5", 0, 5, 9)[0] == 2
    assert ids(read_oldest(storage, "user:5", 0, 5, 9)[1]) == [3, 4, 5]
    assert ids(storage.read("user:5", 2, 9)) == [3, 4, 5]
    with pytest.raises(HistoryGoneError) as raised:
        storage.read("user:5", 1, 9)
    assert raised.value.oldest == 3


def found() -> dict[str, str]:
    return {message.id: message.msg for message in run_checks(tags=[TAG])}


def test_a_check_says_what_kind_of_class_it_is(settings):
    settings.EVENTSTREAM_STORAGE_CLASS = PATH
    assert list(found()) == ["eventstream.W022"]


def test_a_check_finds_methods_that_nothing_calls_any_more(settings):
    settings.EVENTSTREAM_STORAGE_CLASS = f"{__name__}.HalfOldStorage"
    assert "append_event()" in found()["eventstream.W023"]


def test_streams_resume_and_hear_of_other_processes(log, tmp_path, app_server, sqlite_only):
    """With a server that is killed, and events that another process sends meanwhile."""
    options = {
        "settings": {"EVENTSTREAM_STORAGE_CLASS": PATH},
        "env": {DIRECTORY: str(tmp_path)},
    }
    server = app_server(sqlite_only, **options)
    send = "import sys; from django_eventstream import send_event\n" + (
        "for n in range(int(sys.argv[1]), int(sys.argv[2])):\n"
        "    send_event('a', 'message', {'channel': 'a', 'n': n})"
    )
    process = {"database": sqlite_only.settings, **options}
    with StreamClient(f"{server.url}/events/?channel=a") as client:
        client.wait_open()
        server.send(*numbered("a", [1]))
        client.wait_for(1)
        server.kill()
        run_python(send, "2", "9", **process)
        server.start()
        client.wait_for(8)
        run_python(send, "9", "12", **process)
        client.wait_for(11)
    assert_sequence(client, "a", range(1, 12))
