"""The rules that every event keeps, and what whoever breaks them reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_eventstream.events import (
    CONTROL_CHANNEL,
    CONTROL_TYPES,
    Event,
    validate,
    validate_channel,
    validate_data,
    validate_type,
    validate_user_ids,
)

names = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=255)


class User:
    def __init__(self, pk):
        self.pk = pk

    def __str__(self):
        return "the name of the user"


@given(names)
def test_any_text_of_up_to_255_characters_is_a_channel(name):
    assert validate_channel(name) == name


@given(names.filter(lambda name: not set("\r\n") & set(name)))
def test_any_such_text_without_a_line_end_is_a_type(name):
    assert validate_type(name) == name


@pytest.mark.parametrize(
    ("channel", "error", "text"),
    [
        (None, TypeError, "channel must be str, not NoneType"),
        (5, TypeError, "channel must be str, not int"),
        (b"a", TypeError, "channel must be str, not bytes"),
        ("", ValueError, "channel must not be empty"),
        ("x" * 256, ValueError, "channel has 256 characters; at most 255 are possible"),
        ("a\x00", ValueError, "channel contains a NUL character"),
        ("a\ud800", ValueError, "channel contains a lone surrogate at 1, which UTF-8 cannot carry"),
        (CONTROL_CHANNEL, ValueError, "channel '__eventstream__' is reserved"),
    ],
)
def test_what_is_no_channel_is_told_why(channel, error, text):
    with pytest.raises(error) as raised:
        validate_channel(channel)
    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("event_type", "error", "text"),
    [
        (None, TypeError, "event_type must be str, not NoneType"),
        ("x" * 256, ValueError, "event_type has 256 characters; at most 255 are possible"),
        ("a\nb", ValueError, r"event_type 'a\nb' contains a line end"),
        ("a\rb", ValueError, r"event_type 'a\rb' contains a line end"),
        ("a\x00", ValueError, "event_type contains a NUL character"),
        (
            "\udfff",
            ValueError,
            "event_type contains a lone surrogate at 0, which UTF-8 cannot carry",
        ),
        *(
            (name, ValueError, f"event_type {name!r} is reserved for the stream itself")
            for name in sorted(CONTROL_TYPES)
        ),
    ],
)
def test_what_is_no_type_is_told_why(event_type, error, text):
    with pytest.raises(error) as raised:
        validate_type(event_type)
    assert str(raised.value) == text


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ({"a": 1}, TypeError, "data must be str once encoded, not dict"),
        (None, TypeError, "data must be str once encoded, not NoneType"),
        ("x\ud800", ValueError, "data contains a lone surrogate at 1, which UTF-8 cannot carry"),
    ],
)
def test_what_is_no_data_is_told_why(data, error, text):
    with pytest.raises(error) as raised:
        validate_data(data)
    assert str(raised.value) == text


def test_the_empty_type_is_message():
    assert validate(Event("a", "", "x")).type == "message"


def test_an_event_that_is_sent_has_no_id_yet():
    with pytest.raises(ValueError, match="cannot bring its own id"):
        validate(Event("a", "t", "x", id=1))
    assert Event("a", "t", "x").with_id(5) == Event("a", "t", "x", 5)


@pytest.mark.parametrize(
    "given_ids", [[7, "8"], (7, 8), {7, 8}, iter([7, 8]), [User(7), User("8")]]
)
def test_users_who_skip_an_event_may_be_given_by_key_or_themselves(given_ids):
    """The text of a user is the name, not the key: the event had reached whom it should not."""
    assert validate_user_ids(given_ids) == {"7", "8"}


def test_users_of_a_ready_event_become_text_too():
    assert validate(Event("a", "t", "x", skip_user_ids=[7])).skip_user_ids == {"7"}


@pytest.mark.parametrize("given_ids", ["78", b"78", 78, User(7)])
def test_users_who_are_no_collection_are_refused(given_ids):
    """A string is a collection of its letters: "78" had skipped the users 7 and 8."""
    with pytest.raises(
        TypeError, match=r"skip_user_ids must be an iterable .* such as \[user.pk\]"
    ):
        validate_user_ids(given_ids)
