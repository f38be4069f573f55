"""A ticket is good for one kind of request, for a while; whatever else comes, Django is asked."""

from __future__ import annotations

import base64
import contextlib
import secrets
import zlib

import pytest
from django.core.signing import Signer
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_eventstream.channelmanager import ChannelManagerBase, DefaultChannelManager
from django_eventstream.cursors import Cursor, with_ticket
from django_eventstream.hold import Hold
from django_eventstream.hub.revocations import ControlMark
from django_eventstream.web import tickets
from django_eventstream.web.header_sets import DIGEST_BYTES, MOST_BYTES, MOST_SETS
from django_eventstream.web.tickets import LONGEST_LIFE, SALT, Ticket, Tickets

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
OTHER = [
    {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager"},
    {"EVENTSTREAM_STORAGE_CLASS": "django_eventstream.storage.RedisStorage"},
]
KEY = "only-for-the-tests-and-long-enough-for-the-checks-of-django"


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


class Site:
    """One process that issues tickets and honours them, at a time that the test says."""

    def __init__(self, now=1_000_000.0):
        self.now = now
        self.mark = MARK
        self.tickets = Tickets(lambda: self.mark, lambda: self.now)

    def issue(self, request=None, start=START, **changes):
        """Answers as Django would, and gives a ticket; None for a stream that gets none."""
        stamp = self.tickets.stamp_for(request or scope(), start, hold(**changes))
        return stamp and stamp()

    def bring(self, ticket, headers=None, cursor=CURSOR, **changes):
        """Comes back with this ticket, in a request that is changed so."""
        brought = {"last-event-id": with_ticket(cursor, ticket)}
        return self.tickets.read(scope({**brought, **(headers or {})}, **changes))


@pytest.fixture
def site():
    return Site()


@pytest.fixture(autouse=True)
def manager(settings):
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = MANAGER


def test_a_ticket_stands_for_what_django_had_decided(site):
    returning = site.bring(site.issue())
    assert (returning.hold.reliable, returning.hold.unreliable) == (("a", "b,"), ("c",))
    assert returning.hold.user_id == "7"
    assert returning.hold.cursor == Cursor({"a": 3, "b,": 4})
    assert returning.hold.ticket_seconds == 30
    assert returning.mark == MARK


def test_a_client_that_is_taken_back_gets_tickets_for_the_same_again(site):
    first = site.bring(site.issue())
    site.now += 20
    site.mark = LATER
    second = site.bring(first.hold.stamp())
    assert (second.start, second.mark) == (first.start, LATER)
    assert second.hold.user_id == "7"
    assert (second.hold.reliable, second.hold.unreliable) == (("a", "b,"), ("c",))


def test_the_response_has_the_headers_of_the_one_before_but_no_cookie(site):
    start = site.bring(site.issue()).start
    assert start["headers"] == [header for header in START["headers"] if header[0] != b"Set-Cookie"]


def test_a_ticket_fits_into_a_header_and_a_cursor(site):
    ticket = site.issue()
    assert ticket.isascii()
    assert ticket.isprintable()
    assert not set(ticket) & set(" ,:;")


def test_a_ticket_is_no_part_of_the_position(site):
    assert Cursor.parse(with_ticket(CURSOR, site.issue())) == Cursor.parse(CURSOR)
    assert Cursor.parse(with_ticket("a:1,:9", site.issue())) == Cursor({"a": 1}, epoch=9)


def test_the_predecessor_reads_a_cursor_with_a_ticket(site):
    """5.3.4 splits each part at its only colon, and takes the channels that it knows."""
    parts = [part.split(":") for part in with_ticket(CURSOR, site.issue()).split(",")]
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
def test_a_ticket_is_not_good_with_other_headers(site, headers):
    assert site.bring(site.issue(), headers) is None


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
def test_a_ticket_is_not_good_for_another_request(site, changes):
    assert site.bring(site.issue(), **changes) is None


@pytest.mark.parametrize(
    "headers",
    [{"cache-control": "no-store"}, {"pragma": "no-cache"}, {"x-request-id": "8"}],
)
def test_headers_that_differ_each_time_do_not_matter(site, headers):
    assert site.bring(site.issue(), headers) is not None


def test_the_port_and_the_polyfills_query_do_not_matter(site):
    assert site.bring(site.issue(), client=("192.0.2.1", 6000)) is not None
    again = {"query_string": b"channel=a&lastEventId=a%3A1&channel=b,"}
    assert site.bring(site.issue(), **again) is not None


def test_a_forwarded_address_counts_beside_that_of_the_connection(site):
    """It counted alone: a client that wrote the header itself could come from any address."""
    forwarded = {"x-forwarded-for": "198.51.100.1"}
    ticket = site.issue(scope(forwarded))
    assert site.bring(ticket, forwarded) is not None
    assert site.bring(ticket, {"x-forwarded-for": "198.51.100.2"}) is None
    assert site.bring(ticket, forwarded, client=("192.0.2.9", 1)) is None
    assert site.bring(ticket) is None


def test_headers_that_repeat_keep_their_order(site):
    """Two of one name in another order are another request: Django joins them."""
    request, other = scope(), scope()
    request["headers"] += [(b"x-role", b"user"), (b"x-role", b"admin")]
    other["headers"] += [(b"x-role", b"admin"), (b"x-role", b"user")]
    ticket = (b"last-event-id", with_ticket(CURSOR, site.issue(request)).encode())
    request["headers"].append(ticket)
    other["headers"].append(ticket)
    assert site.tickets.read(request) is not None
    assert site.tickets.read(other) is None


def test_two_cursors_in_one_request_are_for_django(site):
    request = scope({"last-event-id": with_ticket(CURSOR, site.issue())})
    request["headers"].append((b"last-event-id", b"a:1"))
    assert site.tickets.read(request) is None


def test_every_changed_character_spoils_a_ticket(site):
    ticket = site.issue()
    for place, character in enumerate(ticket):
        other = "A" if character != "A" else "B"
        assert site.bring(ticket[:place] + other + ticket[place + 1 :]) is None


@pytest.mark.parametrize("cursor", ["a:3", "a:3,b%2C:4,secret:0", "a:3,secret:0", ""])
def test_a_ticket_is_not_good_with_a_cursor_of_other_channels(site, cursor):
    assert site.bring(site.issue(), cursor=cursor or "x:0") is None


def test_a_position_is_for_the_client_to_say(site):
    assert site.bring(site.issue(), cursor="b%2C:0,a:1").hold.cursor.positions == {"b,": 0, "a": 1}


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_whatever_comes_as_a_ticket_is_refused(text):
    value = f"a:1,:{text}".encode("latin-1", "replace")
    request = scope()
    request["headers"].append((b"last-event-id", value))
    assert Site().tickets.read(request) is None


@pytest.mark.parametrize(("later", "is_good"), [(-60, False), (-2, True), (29, True), (31, False)])
def test_a_ticket_is_good_for_as_long_as_it_was_given(site, later, is_good):
    ticket = site.issue(ticket_seconds=30)
    site.now += later
    assert (site.bring(ticket) is not None) is is_good


def test_no_ticket_lasts_longer_than_revocations_are_remembered(site):
    ticket = site.issue(ticket_seconds=10**6)
    site.now += LONGEST_LIFE
    assert site.bring(ticket) is not None
    site.now += 1
    assert site.bring(ticket) is None


@pytest.mark.parametrize(("seconds", "end"), [(40, 40), (300, 300), (10**6, 300)])
def test_django_is_asked_again_however_often_a_client_comes_back(site, seconds, end):
    """A ticket was renewed at each return: Django was never asked again."""
    ticket, began = site.issue(ticket_seconds=seconds), site.now
    for site.now in range(int(began), int(began) + 600, 7):
        returning = site.bring(ticket)
        if returning is None:
            break
        ticket = returning.hold.stamp()
        assert ticket
    assert end < site.now - began <= end + 7


def test_a_stream_that_was_taken_back_gets_no_ticket_when_its_chain_is_over(site):
    stamp = site.bring(site.issue()).hold.stamp
    site.now += 30
    assert site.bring(stamp()) is not None
    site.now += 3_600
    assert stamp() == ""


def test_a_stream_that_django_let_in_begins_a_chain_when_it_is_given_a_ticket(site):
    """So a server that stops gives one to streams that have lasted for hours."""
    stamp = site.tickets.stamp_for(scope(), START, hold())
    site.now += 3_600
    ticket = stamp()
    assert site.bring(ticket) is not None
    site.now += 31
    assert site.bring(ticket) is None


def test_a_secret_key_that_was_replaced_is_honoured_while_it_is_a_fallback(site):
    ticket = site.issue()
    with override_settings(SECRET_KEY="another" * 8):
        assert site.bring(ticket) is None
    with override_settings(SECRET_KEY="another" * 8, SECRET_KEY_FALLBACKS=["third" * 9]):
        assert site.bring(ticket) is None
    with override_settings(SECRET_KEY="another" * 8, SECRET_KEY_FALLBACKS=["third" * 9, KEY]):
        assert site.bring(ticket) is not None


def test_a_ticket_of_other_rules_is_not_honoured(site, monkeypatch):
    ticket = site.issue()
    for other in OTHER:
        with override_settings(**other):
            assert site.bring(ticket) is None
    assert site.bring(ticket) is not None
    with monkeypatch.context() as patch:
        patch.setattr(f"{MANAGER}.ticket_version", 2)
        assert site.bring(ticket) is None
    # A release that gives none does not honour those of the one before.
    monkeypatch.delattr(f"{MANAGER}.get_ticket_seconds")
    assert site.bring(ticket) is None


def test_a_ticket_of_another_format_is_not_honoured(site, monkeypatch):
    monkeypatch.setattr(tickets, "SALT", f"{SALT}.later")
    ticket = site.issue()
    monkeypatch.undo()
    assert site.bring(ticket) is None


def test_a_ticket_of_the_release_before_is_not_honoured(site):
    """It was JSON in base64, with a signature of Django's."""
    content = '[1,"7",["a","b,"],["c"],[["X-Frame-Options","DENY"]],60,1000000,0,12]'
    text = base64.urlsafe_b64encode(content.encode()).decode()
    signature = Signer(sep=".", salt="django_eventstream.ticket").signature(text)
    assert site.bring(f"{text}.{signature}") is None


def test_where_streams_must_come_through_a_proxy_no_ticket_is_honoured(site):
    ticket = site.issue()
    with override_settings(GRIP_PROXY_REQUIRED=True, GRIP_URL="http://127.0.0.1:5561"):
        assert site.bring(ticket) is None


@pytest.mark.parametrize("changes", [{"ticket_seconds": 0}, {"reliable": ()}])
def test_some_streams_get_no_ticket(site, changes):
    assert site.issue(**changes) is None


def test_a_hub_that_does_not_hear_of_revocations_issues_nothing(site):
    site.mark = None
    assert site.issue() == ""
    assert with_ticket(CURSOR, "") == CURSOR


@pytest.mark.parametrize("manager", [ChannelManagerBase(), DefaultChannelManager()])
@pytest.mark.parametrize("user", [None, "anna"])
def test_a_manager_gives_no_tickets_unless_the_project_says_so(manager, user):
    """The default gave them to everybody who was not logged in."""
    assert manager.get_ticket_seconds(user, ["a"]) == 0


# What is in it


SHORT = tuple(f"channel-{number}" for number in range(10))
MANY_HEADERS = [*START["headers"], *((f"X-{n}".encode(), b"secret" * 20) for n in range(20))]


@pytest.mark.parametrize(
    "channels",
    [
        {"reliable": SHORT, "unreliable": ()},
        {"reliable": ("a",), "unreliable": SHORT},
        {"reliable": ("a",), "unreliable": tuple(f"zażółć-{number}" for number in range(10))},
        {"reliable": tuple("x" * 300 for _ in range(9)), "unreliable": ()},
    ],
)
def test_a_ticket_is_shorter_than_300_characters(site, channels):
    """It had the response's headers in it, in base64: 400 characters for one channel."""
    user_id = "9b2d4f0a-6f3e-4c58-9a51-0a2b6b7c1d2e"
    site.mark = ControlMark(1_700_000_000, 10**9)
    start = {**START, "headers": MANY_HEADERS}
    ticket = site.issue(scope(), start, user_id=user_id, **channels)
    assert 0 < len(ticket) < 300


def test_where_no_short_ticket_has_room_for_the_channels_there_is_none(site):
    unreliable = tuple(secrets.token_hex(30) for _ in range(10))
    assert site.issue(unreliable=unreliable) == ""


def test_nothing_can_be_read_in_a_ticket(site):
    """User, channels and headers could be, by anybody who saw a log of requests."""
    hidden = [b"user-4711", b"secret-channel", b"event-stream", b"Access-Control", b"app.example"]
    names = {"user_id": "user-4711", "reliable": ("secret-channel",), "unreliable": ("c",)}
    ticket = site.issue(**names)
    raw = base64.urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4))
    for text in (ticket.encode(), raw, *inflated(raw)):
        assert not any(word in text for word in hidden)
        assert b"user" not in text


def inflated(raw: bytes) -> list[bytes]:
    """Whatever is deflated in it, at any place."""
    found = []
    for place in range(len(raw)):
        with contextlib.suppress(zlib.error):
            found.append(zlib.decompressobj(-15).decompress(raw[place:]))
    return found


@given(
    user_id=st.none() | st.text(),
    unreliable=st.lists(st.text(min_size=1), unique=True, max_size=5).map(tuple),
    seconds=st.integers(1, LONGEST_LIFE),
    mark=st.tuples(st.integers(0, 2**63), st.integers(0, 2**63)),
)
def test_a_packed_ticket_is_unpacked(user_id, unreliable, seconds, mark):
    ticket = Ticket(b"x" * DIGEST_BYTES, user_id, unreliable, seconds, 1_000_000, *mark)
    assert Ticket.unpack(ticket.pack()) == ticket


# Headers, which a ticket only names


def test_a_process_that_has_not_seen_the_headers_asks_django_once(site):
    ticket, other = site.issue(), Site()
    assert other.bring(ticket) is None
    other.issue(scope({"cookie": "sessionid=2"}), user_id="8")
    assert other.bring(ticket).start == site.bring(ticket).start


def test_other_headers_than_those_of_the_ticket_are_of_no_use(site):
    ticket, other = site.issue(), Site()
    other.issue(start={**START, "headers": [*START["headers"], (b"X-Robots-Tag", b"none")]})
    assert other.bring(ticket) is None


def test_a_site_whose_headers_never_repeat_is_asked_each_time(site):
    ticket = site.issue(start=with_nonce(0))
    for number in range(MOST_SETS):
        site.issue(start=with_nonce(number + 1))
    assert site.bring(ticket) is None


def test_a_response_with_very_long_headers_gets_no_ticket(site):
    start = {**START, "headers": [(b"X-Long", b"x" * MOST_BYTES)]}
    assert site.issue(start=start) is None


def with_nonce(number):
    policy = (b"Content-Security-Policy", b"script-src 'nonce-%d'" % number)
    return {**START, "headers": [*START["headers"], policy]}


def test_a_long_cursor_carries_no_ticket(site):
    cursor = f"{'x' * 3_990}:1"
    assert with_ticket(cursor, site.issue()) == cursor
