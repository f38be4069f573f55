"""What is written is what a browser's parser reads, however the network cuts it."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_eventstream import sse
from django_eventstream.cursors import format_cursor
from django_eventstream.events import CONTROL_TYPES, validate_type
from tests.sse_parser import EventStreamParser, Message

NASTY = ["\r", "\n", "\r\n", "\x00", "\u2028", "\ufeff", ":", " ", "data:", "id: x", "", "💥", "é"]
texts = st.text(st.characters(codec="utf-8"), max_size=200) | st.lists(
    st.sampled_from(NASTY), max_size=12
).map("".join)
channels = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
types = texts.filter(lambda text: text and not set("\r\n\x00") & set(text)).filter(
    lambda text: text not in CONTROL_TYPES
)
cursors = st.dictionaries(channels, st.integers(0, 2**63 - 1), min_size=1, max_size=4).map(
    lambda positions: format_cursor(positions.items())
)
events = st.tuples(types, texts, cursors)


def read(stream: bytes, cut_at: int | None = None, parser: EventStreamParser | None = None):
    parser = parser or EventStreamParser()
    chunks = [stream] if cut_at is None else [stream[:cut_at], stream[cut_at:]]
    return [message for chunk in chunks for message in parser.feed(chunk)]


def as_seen(text: str) -> str:
    """Line ends of all kinds become one: the format has no other."""
    return re.sub("\r\n|\r", "\n", text)


@given(st.lists(events, max_size=4))
@example([("message", "", "a:1")])
@example([("message", "\n", "a:1"), (" x", " y", "a:2")])
@example([("message", "data: x\n\nid: 9\n\nevent: y", "a:1")])
def test_what_is_sent_is_read(sent):
    stream = sse.PADDING + b"".join(sse.encode(*event) for event in sent)
    expected = [Message(kind, as_seen(data), cursor) for kind, data, cursor in sent]
    assert read(stream) == expected


@given(st.lists(events, min_size=1, max_size=2))
def test_what_is_sent_is_read_wherever_it_is_cut(sent):
    stream = b"".join(sse.encode(*event) for event in sent)
    whole = read(stream)
    assert len(whole) == len(sent)
    assert all(read(stream, at) == whole for at in range(len(stream) + 1))


@given(st.lists(events, min_size=1, max_size=2))
def test_what_is_sent_is_read_byte_by_byte(sent):
    stream = b"".join(sse.encode(*event) for event in sent)
    parser = EventStreamParser()
    found = [message for byte in stream for message in parser.feed(bytes([byte]))]
    assert found == read(stream)


@given(st.lists(events, min_size=2, max_size=4), st.data())
def test_a_client_cut_off_anywhere_resumes_at_the_event_that_it_has_not_seen_whole(sent, data):
    """5.3.4 wrote the id before the data: a client cut in between lost the event."""
    frames = [sse.encode(*event) for event in sent]
    at = data.draw(st.integers(0, sum(map(len, frames))))
    parser = EventStreamParser("start")
    seen = read(b"".join(frames)[:at], parser=parser)
    expected = ["start", *(cursor for _, _, cursor in sent)][len(seen)]
    assert parser.last_event_id == expected


@given(events)
def test_the_id_is_the_last_line(event):
    *_, id_line, blank, end = sse.encode(*event).split(b"\n")
    assert id_line == b"id: " + event[2].encode()
    assert blank == end == b""


@given(st.text(), st.text(), st.text())
@example("a\nid: 5", "x", "y\n\ndata: z")
@example("\ud800", "\udfff", "\ud800")
def test_no_text_at_all_breaks_the_framing(kind, data, cursor):
    """Even what sending refuses: a row of the table may come from elsewhere."""
    stream = sse.encode(kind, data, cursor.encode(errors="replace").decode())
    found = read(stream + sse.encode("end", "of stream", "a:1"))
    assert len(found) == 2
    assert found[1] == Message("end", "of stream", "a:1")


@given(texts, texts)
def test_an_event_without_cursor_leaves_the_cursor_alone(kind, data):
    parser = EventStreamParser("a:1")
    [message] = read(sse.encode(kind, data), parser=parser)
    assert message.data == as_seen(data)
    assert parser.last_event_id == "a:1"


@given(cursors)
def test_a_position_alone_moves_the_cursor_and_dispatches_nothing(cursor):
    parser = EventStreamParser()
    assert read(sse.encode_position(cursor), parser=parser) == []
    assert parser.last_event_id == cursor


@given(types, texts, cursors)
def test_body_and_id_make_the_whole(kind, data, cursor):
    assert sse.encode_body(kind, data) + sse.encode_id(cursor) == sse.encode(kind, data, cursor)


@given(types)
def test_types_that_may_be_sent_arrive_as_they_are(kind):
    [message] = read(sse.encode(validate_type(kind), "x"))
    assert message.type == kind


# The stream's own events, as 5.3.4 wrote them, and the cursor


def test_the_first_bytes_push_through_buffers():
    opened = sse.encode_open("a:1")
    assert opened == b":" + b" " * 2048 + b"\nevent: stream-open\ndata: \nid: a:1\n\n"


def test_a_message_is_an_event_without_a_type_as_htmx_4_wants_it_and_no_other_is():
    assert sse.encode("message", "x", "a:1") == b"data: x\nid: a:1\n\n"
    assert sse.encode("", "x").startswith(b"event: \n"), "only a storage of others has this type"


@pytest.mark.parametrize(
    "written",
    [
        sse.encode_open("a:1"),
        sse.encode_open(""),
        sse.encode_position("a:1"),
        sse.encode_retry(1234),
        sse.KEEP_ALIVE,
    ],
)
def test_no_block_without_data_looks_like_an_empty_message(written):
    """fetch-event-source takes each blank line for a message: the padding was an empty one."""
    for block in written.removesuffix(b"\n\n").split(b"\n\n"):
        assert any(line.startswith(b"event: ") for line in block.split(b"\n"))


def test_a_stream_without_a_log_opens_without_a_cursor():
    parser = EventStreamParser("old")
    assert read(sse.encode_open(""), parser=parser) == [Message("stream-open", "", "old")]


def test_a_keep_alive_is_a_named_event_that_leaves_the_cursor_alone():
    parser = EventStreamParser("a:1")
    assert read(sse.KEEP_ALIVE, parser=parser) == [Message("keep-alive", "", "a:1")]


def test_a_reset_names_channels_and_reasons_and_the_new_position():
    [message] = read(sse.encode_reset({"b": "epoch", "a\n": "gone"}, "b:7"))
    assert (message.type, message.last_event_id) == ("stream-reset", "b:7")
    assert json.loads(message.data) == {
        "channels": ["a\n", "b"],
        "reasons": {"a\n": "gone", "b": "epoch"},
    }


@pytest.mark.parametrize("listed", [[], ["a", "b"]])
def test_an_error_carries_the_id_that_ends_a_client(listed):
    [message] = read(sse.encode_error("forbidden", "Permission denied", listed))
    assert (message.type, message.last_event_id) == ("stream-error", "error")
    expected = {"condition": "forbidden", "text": "Permission denied"}
    assert json.loads(message.data) == (expected | {"channels": listed} if listed else expected)


def test_the_retry_is_read_and_dispatches_nothing():
    parser = EventStreamParser()
    assert read(sse.encode_retry(1234), parser=parser) == []
    assert parser.retry == 1234
