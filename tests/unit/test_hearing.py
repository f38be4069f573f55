"""What a feed passes on of what it hears."""

from __future__ import annotations

import random

from django_eventstream.events import Event
from django_eventstream.feeds.hearing import NUMBERS_REMEMBERED, Hearing
from django_eventstream.publishers.messages import News


class Heard:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def offer(self, events) -> None:
        self.texts += [event.data for event in events]


def news(number: int | None, *, event_id: int | None = None, sender: str = "other-0") -> News:
    return News(sender, number, (Event("c", "message", f"{number}", event_id),), ())


def heard_of(*messages: News) -> list[str]:
    hearing, heard = Hearing(), Heard()
    for message in messages:
        hearing.tell(message, heard)
    return heard.texts


def test_a_message_that_is_overtaken_is_no_repeat():
    """A lower number than the last one was taken for a repeat, and its events were dropped."""
    numbers = list(range(NUMBERS_REMEMBERED))
    random.Random(1).shuffle(numbers)
    messages = [news(number) for number in numbers]
    assert heard_of(*messages, *messages) == [str(number) for number in numbers]


def test_a_message_that_is_older_than_all_that_is_remembered_is_taken_for_a_repeat():
    assert heard_of(news(0), news(NUMBERS_REMEMBERED), news(0)) == ["0", str(NUMBERS_REMEMBERED)]
    assert heard_of(news(5), news(10**12), news(10**12), news(6)) == ["5", str(10**12)]


def test_stored_events_pass_however_often_and_without_a_number():
    stored = news(None, event_id=7)
    assert heard_of(stored, stored, news(3, event_id=8), news(3, event_id=8)) == [
        "None",
        "None",
        "3",
        "3",
    ]


def test_senders_are_told_apart():
    assert heard_of(news(3), news(3, sender="other-1"), news(3)) == ["3", "3"]
