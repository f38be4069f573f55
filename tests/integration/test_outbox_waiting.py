"""Who waits for the publishing hears of its failure, and nobody else; no event stays behind."""

from __future__ import annotations

import threading
from datetime import datetime, timezone

import pytest
from django.db import transaction

from django_eventstream import outbox, send_event
from django_eventstream.exceptions import (
    IncompatibleSettings,
    PublishError,
    StorageUnavailableError,
)
from django_eventstream.models import Event
from django_eventstream.publishers.base import Publisher

pytestmark = pytest.mark.django_db(transaction=True)


class Unreachable(Publisher):
    """A proxy that takes nothing."""

    def publish(self, events, *, wait=False) -> None:
        if wait:
            raise PublishError("unreachable")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setattr(outbox, "get_publishers", lambda: (Unreachable(),))


@transaction.atomic
def in_a_transaction(*sends: tuple[str, int, bool], fails: bool = False) -> None:
    for channel, data, waits in sends:
        send_event(channel, "message", data, async_publish=not waits)
    if fails:
        raise KeyError


def stored(channel: str) -> list[tuple[int | None, str]]:
    return list(Event.objects.filter(channel=channel).order_by("id").values_list("eid", "data"))


def test_a_failure_to_publish_on_one_channel_leaves_none_of_another_behind():
    with pytest.raises(PublishError):
        in_a_transaction(("a", 1, True), ("b", 1, True))
    assert stored("a") == stored("b") == [(1, '"1"')]
    send_event("b", "message", 2)
    assert stored("b") == [(1, '"1"'), (2, '"2"')]


@pytest.mark.parametrize("in_transaction", [True, False])
def test_who_waited_in_a_transaction_that_was_rolled_back_makes_no_other_wait(in_transaction):
    with pytest.raises(KeyError):
        in_a_transaction(("a", 1, True), fails=True)
    if in_transaction:
        in_a_transaction(("a", 2, False))
    else:
        send_event("a", "message", 2)
    assert stored("a") == [(1, '"2"')]


def test_one_who_waits_is_told_although_another_event_of_the_channel_was_first():
    with pytest.raises(PublishError):
        in_a_transaction(("a", 1, False), ("a", 2, True))
    assert stored("a") == [(1, '"1"'), (2, '"2"')]


class Broken(Publisher):
    """Has a fault that nobody thought of."""

    def publish(self, events, *, wait=False) -> None:
        raise KeyError("broken")


@pytest.mark.parametrize("send", [in_a_transaction, lambda event: send_event(*event[:2], "x")])
def test_a_publisher_that_is_broken_keeps_nothing_from_the_others(monkeypatch, caplog, send):
    """Its error reached senders who did not wait, of an event that was stored."""
    told = []

    class Recorder(Publisher):
        def publish(self, events, *, wait=False) -> None:
            told.extend(event.channel for event in events)

    monkeypatch.setattr(outbox, "get_publishers", lambda: (Broken(), Recorder()))
    send(("a", "message", False))
    assert told == ["a"]
    assert "A publisher failed" in caplog.text
    with pytest.raises(PublishError, match="Broken failed"):
        send_event("a", "message", "x", async_publish=False)
    assert told == ["a", "a"]


def test_a_broker_that_is_misnamed_fails_nobody_who_does_not_wait(monkeypatch, caplog):
    def misnamed():
        raise IncompatibleSettings("EVENTSTREAM_REDIS must be a dict")

    monkeypatch.setattr(outbox, "get_publishers", misnamed)
    monkeypatch.setattr(outbox._Refusal, "text", "")
    send_event("a", "message", 1)
    in_a_transaction(("a", 2, False))
    assert [data for _, data in stored("a")] == ['"1"', '"2"']
    assert caplog.text.count("must be a dict") == 1
    with pytest.raises(PublishError, match="must be a dict"):
        send_event("a", "message", 3, async_publish=False)


def test_a_caller_that_commits_by_hand_and_has_no_thread_is_told_so(monkeypatch):
    """Numbering takes a thread then, which cannot begin while Python ends."""

    def no_more(thread):
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    in_a_transaction(("a", 1, False))
    Event.objects.update(eid=None, created=datetime(2020, 1, 1, tzinfo=timezone.utc))
    transaction.set_autocommit(False)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_more)
            with pytest.raises(StorageUnavailableError, match="cannot schedule"):
                outbox.relay_left_behind()
        transaction.rollback()
        assert outbox.relay_left_behind() == 1
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_more)
            assert outbox.relay_left_behind() == 0
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
