"""A cursor comes back as it was written, and whatever else comes has a defined answer."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_eventstream.cursors import (
    MAX_CURSOR_LENGTH,
    MAX_ID,
    Cursor,
    Start,
    format_cursor,
    resolve_start,
)

channels = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
ids = st.integers(0, MAX_ID)
positions = st.dictionaries(channels, ids, min_size=1, max_size=8)
epochs = st.integers(0, 2**40)
CURSOR_CHARACTERS = st.sampled_from("abc:,%0123456789 \x00\r\n/+-é💥\ud800")


@given(positions, epochs)
@example({"a,b:3 %": 5, "\x00\r\n": 0, "💥": MAX_ID}, 0)
def test_what_is_written_is_read_back(positions, epoch):
    text = format_cursor(positions.items(), epoch)
    cursor = Cursor.parse(text)
    if len(text) <= MAX_CURSOR_LENGTH:
        assert (dict(cursor.positions), cursor.epoch or 0) == (positions, epoch)
        assert cursor.is_readable
        assert str(cursor) == text


@given(positions, epochs)
def test_what_is_written_fits_into_a_header_and_a_line(positions, epoch):
    text = format_cursor(positions.items(), epoch)
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text


@given(st.text() | st.text(CURSOR_CHARACTERS))
@example("a:٣")
@example("a:" + "9" * 31)
@example("%ff:1")
@example("%:1")
@example("%zz:1")
@example("\ud800:1")
def test_any_text_has_a_defined_result(text):
    cursor = Cursor.parse(text)
    assert all(name and 0 <= last_id <= MAX_ID for name, last_id in cursor.positions.items())
    assert cursor.epoch is None or cursor.epoch >= 0
    if cursor.positions:
        again = Cursor.parse(str(cursor))
        assert (again.positions, again.epoch) == (cursor.positions, cursor.epoch)


@given(st.binary())
def test_any_bytes_of_a_header_have_a_defined_result(raw):
    Cursor.parse(raw.decode("latin-1"))
    Cursor.parse(raw.decode(errors="replace"))
    Cursor.parse(raw.decode(errors="surrogateescape"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:3", {"a": 3}),
        ("a:3,b:0", {"a": 3, "b": 0}),
        ("a%3A5:7", {"a:5": 7}),
        ("a:5:7", {"a:5": 7}),
        (" a:3 , b:4 ", {"a": 3, "b": 4}),
        ("a:3,a:2,a:9", {"a": 2}),
        ("a:003", {"a": 3}),
        ("a:" + "9" * 30, {"a": MAX_ID}),
        ("%C3%A4:1,ä:2", {"ä": 1}),
    ],
)
def test_a_readable_cursor(text, expected):
    assert Cursor.parse(text) == Cursor(expected)


@pytest.mark.parametrize("text", ["", ",", " , ,", ",a:1,"])
def test_nothing_between_commas_is_no_fault(text):
    assert Cursor.parse(text).is_readable


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a:",
        "a:-1",
        "a:1.5",
        "a:+1",
        "a:1 2",
        "a:٣",
        "a:" + "1" * 31,
        "%ff:1",
        "error",
        "a:x,b:1",
    ],
)
def test_what_is_no_position_makes_it_unreadable(text):
    assert not Cursor.parse(text).is_readable


def test_the_readable_parts_of_an_unreadable_cursor_count():
    assert Cursor.parse("a:3,nonsense,b:4") == Cursor({"a": 3, "b": 4}, is_readable=False)


def test_a_cursor_longer_than_any_server_lets_pass_is_not_read():
    text = "a:1," * (MAX_CURSOR_LENGTH // 4)
    assert Cursor.parse(text).positions == {"a": 1}
    assert Cursor.parse(text + "b:1") == Cursor(is_readable=False)


def test_the_epoch_is_one_more_part_that_the_old_parser_tolerates():
    assert format_cursor([("a", 3)], 17) == "a:3,:17"
    assert Cursor.parse("a:3,:17") == Cursor({"a": 3}, epoch=17)
    assert format_cursor([("a", 3)], 0) == "a:3"
    assert format_cursor([], 17) == ""


def test_cursors_cannot_be_changed():
    with pytest.raises(TypeError):
        Cursor.parse("a:1").positions["a"] = 2
    with pytest.raises(AttributeError):
        Cursor.parse("a:1").epoch = 2


# Where a stream starts


def start(cursor: str | None, current: Mapping[str, int], epoch: int = 0) -> Start:
    parsed = None if cursor is None else Cursor.parse(cursor)
    return resolve_start(current, parsed, current, epoch)


@pytest.mark.parametrize(
    ("cursor", "positions", "resets"),
    [
        (None, {"a": 5, "b": 7}, {}),
        ("", {"a": 5, "b": 7}, {}),
        ("a:3", {"a": 3, "b": 7}, {}),
        ("a:5,b:1,c:9", {"a": 5, "b": 1}, {}),
        ("a:6,b:7", {"a": 5, "b": 7}, {"a": "ahead"}),
        ("a:3,:1", {"a": 5, "b": 7}, {"a": "epoch"}),
        ("a:3,b:0,:0", {"a": 3, "b": 0}, {}),
        ("a:0,:1", {"a": 5, "b": 7}, {"a": "epoch"}),
        ("a:3,nonsense", {"a": 3, "b": 7}, {"b": "unreadable"}),
        ("nonsense", {"a": 5, "b": 7}, {"a": "unreadable", "b": "unreadable"}),
    ],
)
def test_where_a_stream_starts(cursor, positions, resets):
    assert start(cursor, {"a": 5, "b": 7}) == Start(positions, resets)


@pytest.mark.parametrize("epoch", [0, 9])
def test_zero_without_an_epoch_asks_for_the_beginning_in_every_epoch(epoch):
    """`news:0` was a position of the first epoch: in any other it was reset, for good."""
    begin = start("a:0", {"a": 5, "b": 7}, epoch)
    assert begin == Start({"a": 0, "b": 7}, {}, frozenset({"a"}))
    assert start("a:0,nonsense", {"a": 5, "b": 7}, epoch) == Start(
        {"a": 0, "b": 7}, {"b": "unreadable"}, frozenset({"a"})
    )


def test_zero_of_an_epoch_is_a_position_like_any_other():
    assert start("a:0,:9", {"a": 5}, epoch=9) == Start({"a": 0}, {})
    assert start("a:0,:0", {"a": 5}, epoch=9) == Start({"a": 5}, {"a": "epoch"})


def test_an_empty_channel_has_no_other_beginning_than_now():
    assert start("a:0", {"a": 0}, epoch=9) == Start({"a": 0}, {})


def test_whether_an_epoch_was_said_is_read_back():
    for text in ("a:0", "a:0,:0", "a:0,:7"):
        assert str(Cursor.parse(text)) == text


def test_a_cursor_of_the_first_epoch_is_not_resumed_in_a_later_one():
    assert start("a:3", {"a": 5}, epoch=9) == Start({"a": 5}, {"a": "epoch"})
    assert start("a:3,:9", {"a": 5}, epoch=9) == Start({"a": 3}, {})


@given(
    st.none() | st.builds(Cursor, positions, st.none() | epochs, st.booleans()),
    st.dictionaries(channels, ids, max_size=8),
    epochs,
)
def test_a_stream_starts_where_the_client_was_or_tells_it_to_start_over(cursor, current, epoch):
    begin = resolve_start(current, cursor, current, epoch)
    assert begin.positions.keys() == current.keys()
    assert begin.resets.keys() <= current.keys()
    for channel, position in begin.positions.items():
        brought = None if cursor is None else cursor.positions.get(channel)
        assert 0 <= position <= current[channel]
        if channel in begin.resets or brought is None:
            assert position == current[channel]
        else:
            assert position == brought
        if cursor is None or brought is None:
            continue
        if cursor.epoch is None and brought == 0:
            assert channel not in begin.resets
            assert (channel in begin.from_oldest) == (current[channel] > 0)
        elif brought > current[channel] or (cursor.epoch or 0) != epoch:
            assert channel in begin.resets
