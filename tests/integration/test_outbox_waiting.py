"""Who waits for the publishing hears of its failure, and nobody else; no event stays behind."""

from __future__ import annotations

import pytest
from django.db import transaction

from django_eventstream import outbox, send_event
from django_eventstream.exceptions import PublishError
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
