"""A ticket is good for one kind of request, for a while; whatever else comes, Django is asked."""

from __future__ import annotations

import base64
import time

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_eventstream.cursors import Cursor, with_ticket
from django_eventstream.hold import Hold
from django_eventstream.hub.revocations import ControlMark
from django_eventstream.web import tickets
from django_eventstream.web.tickets import read_ticket, stamp_for

MARK = ControlMark(0, 12)
LATER = ControlMark(0, 15)
CURSOR = "a:3,b%2C:4"
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"Content-Type", b"text/event-stream"),
        (b"Cache-Control", b"no-cache, no-transform, private, no-store"),
        (b"X-Accel-Buffering", b"no"),
        (b"Access-Control-Allow-Origin", b"https://app.example"),
        (b"X-\xe4", b"\xff"),
        (b"Set-Cookie", b"sessionid=new"),
    ],
}
HEADERS = {
    "host": "example.com",
    "accept": "text/event-stream",
    "cookie": "sessionid=1",
    "authorization": "Bearer x",
    "origin": "https://app.example",
    "cache-control": "no-cache",
    "x-remote-user": "anna",
}
MANAGER = "tests.managers.TicketChannelManager"
OTHER = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager"}


def hold(**changes):
    fields = {
        "reliable": ("a", "b,"),
        "unreliable": ("c",),
        "cursor": None,
        "user_id": "7",
        "authorized_at": 0.0,
        "authorize": lambda: None,
        "ticket_seconds": 30,
    }
    return Hold(**{**fields, **changes})


def scope(headers=None, **changes):
    given_headers = {**HEADERS, **(headers or {})}
    return {
        "type": "http",
        "method": "GET",
        "scheme": "https",
        "path": "/events/",
        "root_path": "",
        "query_string": b"channel=a&channel=b,",
        "client": ("192.0.2.1", 5000),
        "headers": [
            (name.encode(), value.encode("latin-1"))
            for name, value in given_headers.items()
            if value is not None
        ],
        **changes,
    }


def issue(request=None, **changes):
    stamp = stamp_for(request or scope(), START, hold(**changes), lambda: MARK)
    return stamp and stamp()


def bring(ticket, headers=None, **changes):
    """Comes back with this ticket, in a request that is changed so."""
    brought = {"last-event-id": with_ticket(CURSOR, ticket)}
    return read(scope({**brought, **(headers or {})}, **changes))


def read(request):
    return read_ticket(request, lambda: LATER)


@pytest.fixture(autouse=True)
def manager(settings):
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = MANAGER


def test_a_ticket_stands_for_what_django_had_decided():
    returning = bring(issue())
    assert (returning.hold.reliable, returning.hold.unreliable) == (("a", "b,"), ("c",))
    assert returning.hold.user_id == "7"
    assert returning.hold.cursor == Cursor({"a": 3, "b,": 4})
    assert returning.hold.ticket_seconds == 30
    assert returning.mark == MARK


def test_who_is_taken_back_gets_tickets_for_the_same_again(monkeypatch):
    first, now = bring(issue()), time.time()
    monkeypatch.setattr(tickets.time, "time", lambda: now + 100)
    second = bring(first.hold.stamp())
    assert (second.start, second.mark) == (first.start, LATER)
    assert second.hold.user_id == "7"
    assert (second.hold.reliable, second.hold.unreliable) == (("a", "b,"), ("c",))


def test_the_response_has_the_headers_of_the_one_before_but_no_cookie():
    names = [name for name, _ in START["headers"] if name != b"Set-Cookie"]
    start = bring(issue()).start
    assert sorted(start["headers"]) == sorted(
        header for header in START["headers"] if header[0] in names
    )


def test_a_ticket_fits_into_a_header_and_a_cursor():
    ticket = issue()
    assert ticket.isascii()
    assert ticket.isprintable()
    assert not set(ticket) & set(" ,:;")


def test_a_ticket_is_no_part_of_the_position():
    assert Cursor.parse(with_ticket(CURSOR, issue())) == Cursor.parse(CURSOR)
    assert Cursor.parse(with_ticket("a:1,:9", issue())) == Cursor({"a": 1}, epoch=9)


def test_the_predecessor_reads_a_cursor_with_a_ticket():
    """5.3.4 splits each part at its only colon, and takes the channels that it knows."""
    parts = [part.split(":") for part in with_ticket(CURSOR, issue()).split(",")]
    assert [len(part) for part in parts] == [2, 2, 2]


@pytest.mark.parametrize(
    "headers",
    [
        {"cookie": None},
        {"cookie": "sessionid=2"},
        {"cookie": "sessionid=1; theme=dark"},
        {"authorization": None},
        {"authorization": "Bearer y"},
        {"origin": "https://evil.example"},
        {"host": "other.example.com"},
        {"x-remote-user": "bert"},
        {"x-remote-user": None},
        {"x-forwarded-for": "198.51.100.1"},
        {"grip-sig": "x"},
    ],
)
def test_a_ticket_is_not_good_with_other_headers(headers):
    assert bring(issue(), headers) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/events/other/"},
        {"query_string": b"channel=a"},
        {"query_string": b"channel=a&channel=b,&channel=secret"},
        {"root_path": "/site"},
        {"scheme": "http"},
        {"client": ("192.0.2.2", 5000)},
        {"client": None},
        {"extensions": {"tls": {"client_cert_name": "CN=anna"}}},
    ],
)
def test_a_ticket_is_not_good_for_another_request(changes):
    assert bring(issue(), **changes) is None


@pytest.mark.parametrize(
    "headers",
    [{"cache-control": "no-store"}, {"pragma": "no-cache"}, {"x-request-id": "8"}],
)
def test_headers_that_differ_each_time_do_not_matter(headers):
    assert bring(issue(), headers) is not None


def test_the_port_and_the_polyfills_query_do_not_matter():
    assert bring(issue(), client=("192.0.2.1", 6000)) is not None
    again = {"query_string": b"channel=a&lastEventId=a%3A1&channel=b,"}
    assert bring(issue(), **again) is not None


def test_behind_a_proxy_its_headers_tell_the_address():
    forwarded = {"x-forwarded-for": "198.51.100.1"}
    ticket = issue(scope(forwarded))
    assert bring(ticket, forwarded, client=("192.0.2.9", 1)) is not None
    assert bring(ticket, {"x-forwarded-for": "198.51.100.2"}) is None
    assert bring(ticket) is None


def test_headers_that_repeat_keep_their_order():
    """Two of one name in another order are another request: Django joins them."""
    request, other = scope(), scope()
    request["headers"] += [(b"x-role", b"user"), (b"x-role", b"admin")]
    other["headers"] += [(b"x-role", b"admin"), (b"x-role", b"user")]
    ticket = (b"last-event-id", with_ticket(CURSOR, issue(request)).encode())
    request["headers"].append(ticket)
    other["headers"].append(ticket)
    assert read(request) is not None
    assert read(other) is None


def test_two_cursors_in_one_request_are_for_django():
    request = scope({"last-event-id": with_ticket(CURSOR, issue())})
    request["headers"].append((b"last-event-id", b"a:1"))
    assert read(request) is None


def test_every_changed_character_spoils_a_ticket():
    ticket = issue()
    for place, character in enumerate(ticket):
        other = "A" if character != "A" else "B"
        assert bring(ticket[:place] + other + ticket[place + 1 :]) is None


def test_contents_of_ones_own_making_are_refused():
    content, _, signature = issue().rpartition(".")
    text = base64.urlsafe_b64decode(content).decode().replace('"7"', '"8"')
    assert '"8"' in text
    forged = base64.urlsafe_b64encode(text.encode()).decode()
    assert bring(f"{forged}.{signature}") is None


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_whatever_comes_as_a_ticket_is_refused(text):
    value = f"a:1,:{text}".encode("latin-1", "replace")
    request = scope()
    request["headers"].append((b"last-event-id", value))
    assert read(request) is None


def test_a_ticket_is_good_for_as_long_as_it_was_given(monkeypatch):
    ticket, now = issue(ticket_seconds=30), time.time()
    for later, is_good in ((-60, False), (-2, True), (29, True), (32, False)):
        monkeypatch.setattr(tickets.time, "time", lambda later=later: now + later)
        assert (bring(ticket) is not None) is is_good


def test_no_ticket_lasts_longer_than_revocations_are_remembered(monkeypatch):
    ticket, now = issue(ticket_seconds=10**6), time.time()
    monkeypatch.setattr(tickets.time, "time", lambda: now + tickets.LONGEST_LIFE + 2)
    assert bring(ticket) is None


def test_a_secret_key_that_was_replaced_is_honoured_while_it_is_a_fallback():
    ticket = issue()
    with override_settings(SECRET_KEY="another" * 8):
        assert bring(ticket) is None
    with override_settings(SECRET_KEY="another" * 8, SECRET_KEY_FALLBACKS=["third" * 9]):
        assert bring(ticket) is None
    with override_settings(SECRET_KEY="another" * 8, SECRET_KEY_FALLBACKS=[key_of_the_tests()]):
        assert bring(ticket) is not None


def test_a_ticket_of_other_rules_is_not_honoured(monkeypatch):
    ticket = issue()
    with override_settings(**OTHER):
        assert bring(ticket) is None
    monkeypatch.setattr(f"{MANAGER}.ticket_version", 2)
    assert bring(ticket) is None


def test_a_ticket_of_another_format_is_not_honoured(monkeypatch):
    monkeypatch.setattr(tickets, "FORMAT", 2)
    ticket = issue()
    monkeypatch.undo()
    assert bring(ticket) is None


def test_where_streams_must_come_through_a_proxy_no_ticket_is_honoured():
    ticket = issue()
    with override_settings(GRIP_PROXY_REQUIRED=True, GRIP_URL="http://127.0.0.1:5561"):
        assert bring(ticket) is None


@pytest.mark.parametrize("changes", [{"ticket_seconds": 0}, {"reliable": ()}])
def test_some_streams_get_no_ticket(changes):
    assert issue(**changes) is None


def test_a_hub_that_does_not_hear_of_revocations_issues_nothing():
    assert stamp_for(scope(), START, hold(), lambda: None)() == ""
    assert with_ticket(CURSOR, "") == CURSOR


def test_a_ticket_that_would_burst_a_header_is_not_issued():
    start = {**START, "headers": [(b"X-Long", b"x" * 3_000)]}
    assert stamp_for(scope(), start, hold(), lambda: MARK)() == ""


def test_a_long_cursor_carries_no_ticket():
    cursor = f"{'x' * 3_900}:1"
    assert with_ticket(cursor, issue()) == cursor


def key_of_the_tests():
    return "only-for-the-tests-and-long-enough-for-the-checks-of-django"
