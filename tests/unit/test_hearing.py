"""What a feed passes on of what it hears."""

from __future__ import annotations

import random

import pytest

from django_eventstream.events import Event
from django_eventstream.feeds.hearing import NUMBERS_REMEMBERED, Hearing
from django_eventstream.publishers.messages import News


class Heard:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.looks = 0

    def look(self) -> None:
        self.looks += 1

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


GOOD = ["c", "message", "text", 7, ["5"], None]


@pytest.mark.parametrize(
    "values",
    [
        ["c", "message", 5, 7, [], None],
        ["c", None, "text", 7, [], None],
        [5, "message", "text", 7, [], None],
        ["c", "message", "text", "7", [], None],
        ["c", "message", "text", 7, "5", None],
        ["c", "message", "text", 7, {"5": 1}, None],
        ["c", "message", "text", 7, [], "1"],
        ["c", "two\nlines", "text", 7, [], None],
        ["c", "message", "\ud800", 7, [], None],
        ["c", "message", "text", 7, []],
        None,
    ],
)
def test_a_message_with_an_event_that_nobody_can_read_has_the_log_asked(values):
    """It was passed on, and failed in the loop that serves all streams."""
    hearing, heard = Hearing(), Heard()
    message = {"sender": "other-0", "number": 1, "events": [GOOD, values], "hints": []}
    hearing.hear(message, heard)
    assert (heard.texts, heard.looks) == ([], 1)
    hearing.hear({**message, "events": [GOOD]}, heard)
    assert (heard.texts, heard.looks) == (["text"], 1)


@pytest.mark.parametrize("message", [None, [], "text", {}, {"sender": "x"}, {"events": 5}])
def test_what_is_no_message_has_the_log_asked(message):
    heard = Heard()
    Hearing().hear(message, heard)
    assert heard.looks == 1


@pytest.mark.parametrize("hint", [["c"], ["c", "x"], ["c", None], 5])
def test_a_hint_that_nobody_can_read_has_the_log_asked(hint):
    heard = Heard()
    message = {"sender": "other-0", "number": 1, "events": [], "hints": [hint]}
    Hearing().hear(message, heard)
    assert heard.looks == 1
