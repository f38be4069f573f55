"""Messages between processes: what one process says, another one understands."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_eventstream.events import Event
from django_eventstream.publishers import messages
from django_eventstream.publishers.messages import Packer, is_own, unpack

texts = st.text(st.characters(codec="utf-8"), max_size=60)
events = st.builds(
    Event,
    channel=st.sampled_from(["a", "b", "ü,:"]),
    type=st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=60),
    data=texts,
    id=st.none() | st.integers(1, 2**63 - 1),
    skip_user_ids=st.frozensets(texts, max_size=3),
)


def pack(sent):
    return Packer().pack(sent)


def over_the_wire(messages):
    return [unpack(msgpack.unpackb(msgpack.packb(message))) for message in messages]


@given(st.lists(events))
def test_events_arrive_as_they_were(sent):
    received = over_the_wire(pack(sent))
    assert [event for news in received for event in news.events] == sent
    assert all(news.hints == () for news in received)


@given(st.lists(st.integers(0, 3_000), min_size=1), st.integers(1, 50))
def test_no_message_is_too_big_and_the_order_stays(sizes, limit):
    limit *= 100
    sent = [Event("c", "message", "ä" * (size // 2), n) for n, size in enumerate(sizes, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(messages, "MESSAGE_BYTES", limit)
        received = over_the_wire(pack(sent))
    for news in received:
        assert sum(len(event.data.encode()) for event in news.events) <= limit
    whole = [event.id for news in received for event in news.events]
    hinted = [last_id for news in received for _, last_id in news.hints]
    assert whole == sorted(whole)
    assert hinted == sorted(hinted)
    assert sorted(whole + hinted) == [event.id for event in sent]


def test_a_big_stored_event_travels_as_a_hint():
    big = Event("c", "message", "x" * 300_000, 7)
    (news,) = over_the_wire(pack([big]))
    assert news.events == ()
    assert news.hints == (("c", 7),)


def test_a_big_event_that_is_stored_nowhere_travels_whole():
    big = Event("c", "message", "x" * 300_000)
    (news,) = over_the_wire(pack([big]))
    assert news.events == (big,)


def test_a_burst_is_one_message():
    assert len(list(pack([Event("c", "message", "x" * 100, n) for n in range(1, 1001)]))) == 1


def test_messages_are_signed_and_counted():
    packer = Packer()
    first, second = over_the_wire(
        [*packer.pack([Event("c", "m", "")]), *packer.pack([Event("c", "m", "")])]
    )
    assert first.sender == second.sender
    assert is_own(first.sender)
    assert second.number > first.number


def test_streams_of_messages_are_counted_each_for_itself():
    """A counter for all numbered a message before another one that overtook it."""
    one, two = over_the_wire([*pack([Event("c", "m", "")]), *pack([Event("c", "m", "")])])
    assert one.sender != two.sender
    assert one.number == two.number == 0


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "eventstream.events"},
        {"sender": "x", "number": "y", "events": [], "hints": []},
        {"sender": "x", "number": 1, "events": [["too", "short"]], "hints": []},
        {"sender": "x", "number": 1, "events": None, "hints": []},
        {"sender": "x", "number": 1, "events": [], "hints": [["c"]]},
    ],
)
def test_another_message_is_refused(message):
    with pytest.raises((KeyError, TypeError, ValueError)):
        unpack(message)
