"""The parser that judges the package must itself be right: the examples of WHATWG HTML §9.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sse_parser import EventStreamParser


def parse(text: str | bytes, *, last_event_id: str = "") -> list[tuple[str, str, str]]:
    parser = EventStreamParser(last_event_id)
    stream = text.encode() if isinstance(text, str) else text
    return [(found.type, found.data, found.last_event_id) for found in parser.feed(stream)]


@pytest.mark.parametrize(
    ("stream", "messages"),
    [
        ("data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
        (
            ": test stream\n\ndata: first event\nid: 1\n\n"
            "data:second event\nid\n\ndata:  third event",
            [("message", "first event", "1"), ("message", "second event", "")],
        ),
        ("data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
        ("data:test\n\ndata: test\n\n", [("message", "test", ""), ("message", "test", "")]),
        ("event: add\ndata: 1\n\ndata: 2\n\n", [("add", "1", ""), ("message", "2", "")]),
        ("event: add\n\ndata: 1\n\n", [("message", "1", "")]),
        ("event: a\nevent:\ndata: 1\n\n", [("message", "1", "")]),
        ("id: 7\n\ndata: x\n\n", [("message", "x", "7")]),
        ("id: 7\nid: 8\0\ndata: x\n\n", [("message", "x", "7")]),
        ("Data: x\nDATA:y\ndata : z\nfoo: bar\n\n", []),
        ("data:\u00a0x\n\n", [("message", "\u00a0x", "")]),
        ("data: a\u2028b\u0085c\x0bd\n\n", [("message", "a\u2028b\u0085c\x0bd", "")]),
        ("data: a\rdata: b\r\ndata: c\n\r\n", [("message", "a\nb\nc", "")]),
        (
            "\ufeffdata: 1\n\n\ufeffdata: 2\n\ndata: 3\n\n",
            [("message", "1", ""), ("message", "3", "")],
        ),
        (b"data: \xff\xc3\n\n", [("message", "\ufffd\ufffd", "")]),
    ],
)
def test_examples(stream, messages):
    assert parse(stream) == messages


def test_a_block_with_only_an_id_moves_the_cursor_and_dispatches_nothing():
    parser = EventStreamParser("3")
    assert parser.feed(b"id: 4\n\n") == []
    assert parser.last_event_id == "4"


def test_an_unfinished_block_does_not_move_the_cursor():
    parser = EventStreamParser("3")
    assert parser.feed(b"id: 4\ndata: x\n") == []
    assert parser.last_event_id == "3"


def test_the_cursor_of_an_earlier_connection_stays_until_it_is_changed():
    assert parse("data: x\n\n", last_event_id="3") == [("message", "x", "3")]


@pytest.mark.parametrize(
    ("line", "retry"),
    [
        ("retry: 250", 250),
        ("retry:0", 0),
        ("retry: 1.5", None),
        ("retry: -1", None),
        ("retry", None),
    ],
)
def test_retry_takes_digits_only(line, retry):
    parser = EventStreamParser()
    parser.feed(f"{line}\n".encode())
    assert parser.retry == retry


def test_comments_are_kept_aside():
    parser = EventStreamParser()
    assert parser.feed(b": hello\n:\n\n") == []
    assert parser.comments == [" hello", ""]


@given(
    st.lists(
        st.sampled_from(["data", "id", "event", ":", " ", "é", "😀", "1", "\r", "\n", "\r\n"])
    ),
    st.data(),
)
def test_the_cuts_between_chunks_make_no_difference(pieces, data):
    stream = "".join(pieces).encode() + b"\n\n"
    parser = EventStreamParser()
    messages = []
    rest = stream
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        messages += parser.feed(rest[:size])
        rest = rest[size:]
    whole = EventStreamParser()
    assert messages == whole.feed(stream)
    assert parser.last_event_id == whole.last_event_id
