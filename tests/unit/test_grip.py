"""The vocabulary of GRIP: what is written comes back, whatever the names are."""

from __future__ import annotations

import json
import string

from hypothesis import given
from hypothesis import strategies as st

from django_eventstream import grip
from django_eventstream.events import Event

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
LETTERS_OF_PROOFS = string.ascii_letters + string.digits + "-._"
prefixes = st.sampled_from(["", "pre-", "a/b:"])


def as_grip_last(pairs) -> str:
    return ",".join(f"{name}; last-id={last_id}" for name, last_id in pairs)


@given(
    st.dictionaries(names, st.integers(0, 2**63 - 1), max_size=5),
    st.frozensets(names, max_size=5),
    st.none() | names,
    st.integers(0, 2**40),
    prefixes,
    st.text(LETTERS_OF_PROOFS),
)
def test_a_recovery_request_says_what_the_hold_said(
    reliable, unreliable, user, epoch, prefix, proof
):
    last = [(grip.events_channel(name, prefix), n) for name, n in reliable.items()]
    last += [(grip.personal_channel(user, prefix), grip.personal_id(epoch, unreliable, proof))]
    position = grip.parse_position(grip.parse_last(as_grip_last(last)), prefix)
    assert position is not None
    assert position.user_id == user
    assert position.reliable == set(reliable)
    assert position.unreliable == unreliable
    assert dict(position.cursor.positions) == reliable
    assert position.cursor.epoch == epoch
    assert position.proof == proof
    assert position.cursor.is_readable


@given(names, prefixes)
def test_nothing_in_a_name_can_end_a_header_value_or_begin_another(name, prefix):
    for text in (
        grip.events_channel(name, prefix),
        grip.personal_channel(name, prefix),
        grip.personal_id(0, [name]),
    ):
        assert not set(text.removeprefix(prefix)) & set('",;=() \t\r\n')
        assert text.isascii()


def test_somebody_called_anonymous_is_not_everybody():
    assert grip.personal_channel("anonymous") != grip.personal_channel(None)
    last = grip.parse_last(f"{grip.personal_channel('anonymous')}; last-id=e0")
    assert grip.parse_position(last).user_id == "anonymous"


@given(st.text(max_size=200))
def test_any_text_for_grip_last_gives_a_position_or_none(text):
    grip.parse_position(grip.parse_last(text))


def test_what_a_foreign_hold_says_is_not_understood():
    for header in (
        "",
        "events-a; last-id=3",
        "events-a; last-id=3, user-5; last-id=kick-1",
        "events-a; last-id=3, user-5; last-id=e0, user-6; last-id=e0",
        "user-5; last-id=e",
        "user-5; last-id=e-1",
        "user-5; last-id=e٣",
        f"user-5; last-id=e{'9' * 5_000}",
        "user-5",
    ):
        assert grip.parse_position(grip.parse_last(header)) is None


def test_an_id_that_is_no_number_makes_the_cursor_unreadable():
    position = grip.parse_position(
        grip.parse_last("events-a; last-id=x, events-b; last-id=2, user-anonymous; last-id=e0")
    )
    assert position.reliable == {"a", "b"}
    assert dict(position.cursor.positions) == {"b": 2}
    assert not position.cursor.is_readable


def test_an_item_on_a_reliable_channel():
    item = grip.event_item(Event("user:5", "50%", "100%\nü", 7, frozenset({"8", "a,b"})))
    assert item == {
        "channel": "events-user%3A5",
        "id": "7",
        "prev-id": "6",
        "meta": {"skip_users": "8,a%2Cb"},
        "formats": {
            "http-stream": {
                "content": "event: 50%%\ndata: 100%%\ndata: ü\nid: %I\n\n",
                "content-filters": ["build-id"],
            }
        },
    }
    assert json.loads(grip.encode_item(item)) == item


def test_an_item_on_an_unreliable_channel_has_no_id_and_passes_no_filter():
    assert grip.event_item(Event("a", "message", "100%"), "pre-") == {
        "channel": "pre-events-a",
        "formats": {"http-stream": {"content": "data: 100%\n\n"}},
    }


def test_the_id_format_is_the_cursor_with_holes():
    assert grip.id_format(["a", "b:c"], 0) == "a:%(events-a)s,b%%3Ac:%(events-b%3Ac)s"
    assert grip.id_format(["a"], 9, "x-") == "a:%(x-events-a)s,:9"


def test_headers():
    assert grip.keep_alive(b"event: a\ndata: \\\r\n\n", 20) == (
        "event: a\\ndata: \\\\\\r\\n\\n; format=cstring; mode=interval; timeout=20"
    )
    assert grip.keep_alive(b":\n\n", 0.1).endswith("timeout=1")
    assert grip.next_link("/a/", 1800.4) == "</a/>; rel=next; timeout=1800"
    assert grip.next_link("/a/", 0) == "</a/>; rel=next; timeout=1"
    assert grip.next_link("/a/") == "</a/>; rel=next"
    assert grip.set_meta({"a": 'b"c\\', "d": "e"}) == 'a="b\\"c\\\\", d="e"'
