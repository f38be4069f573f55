"""What the views say to a proxy, header by header, and to those who only claim to be one."""

from __future__ import annotations

import re
import secrets
import time
from base64 import urlsafe_b64encode
from urllib.parse import quote

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.contrib.auth import get_user_model
from django.core import signing
from django.http import HttpResponseForbidden
from django.test import AsyncRequestFactory, Client
from django.urls import include, path
from rest_framework.permissions import BasePermission

from django_eventstream import models, send_event, send_events
from django_eventstream.backends import get_storage
from django_eventstream.channelmanager import DefaultChannelManager
from django_eventstream.events import Event
from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.storage.orm import DjangoModelStorage
from django_eventstream.views import events
from django_eventstream.viewsets import EventsViewSet
from django_eventstream.web import proxy
from tests.grip_last import last_of, proven_last
from tests.outlets import close_outlets
from tests.services.deadline import HEALTHY

PREDECESSORS_LINK = "/events/?channel=a&link=next&recover=true&es-meta=x.y.z"
KEY, OTHER = "k" * 32, "j" * 32
pytestmark = pytest.mark.django_db(transaction=True)


class Moody(DefaultChannelManager):
    """Fails, or refuses, as the test says."""

    problem = None

    def can_read_channel(self, user, channel):
        if self.problem:
            raise self.problem
        return True

    def is_channel_reliable(self, channel):
        return not channel.startswith("loose-")


class Looking(DefaultChannelManager):
    def get_channels_for_request(self, request, view_kwargs):
        return super().get_channels_for_request(request, view_kwargs)


def signed(request):
    return events(request, channels=["a"]) if "sig" in request.GET else HttpResponseForbidden()


class Signed(BasePermission):
    def has_permission(self, request, view):
        return "sig" in request.query_params


class SignedViewSet(EventsViewSet):
    authentication_classes = ()
    permission_classes = (Signed,)
    channels = ("a",)


GUARDED = (
    path("signed/", signed),
    path("viewset/", SignedViewSet.as_view()),
    path("events/", include("django_eventstream.urls")),
)


class AwayStorage(DjangoModelStorage):
    def get_position(self, channels):
        raise StorageUnavailableError("away")


@pytest.fixture(autouse=True)
def keyed(settings):
    settings.GRIP_URL = f"http://127.0.0.1:1?iss=me&key={KEY}"
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = f"{__name__}.Moody"
    yield
    Moody.problem = None
    close_outlets()


def signature(key=KEY, **claims):
    return jwt.encode({"iss": "pushpin", "exp": time.time() + 60, **claims}, key)


def ask(path="/events/?channel=a", *, client=None, last=None, sig=None, **headers):
    headers["Grip-Sig"] = signature() if sig is None else sig
    if last is not None:
        headers["Grip-Last"] = last
    return (client or Client()).get(path, headers=headers)


def link(response) -> str:
    return re.match("<(.*?)>", response["Grip-Link"])[1]


def timeout(response) -> int:
    return int(re.search(r"timeout=(\d+)", response["Grip-Link"])[1])


def assert_ended(response) -> None:
    assert (response.status_code, response.content) == (200, b"")
    assert not [name for name in response.headers if name.startswith("Grip-")]


def test_a_hold_in_all_its_headers():
    send_events([("user:5", "message", "100%"), ("b", "message", 1), ("b", "message", 2)])
    response = ask("/events/?channel=user:5&channel=b&channel=loose-c&lastEventId=user%253A5:0")
    assert response.status_code == 200
    assert response["Content-Type"] == "text/event-stream"
    assert response["Grip-Hold"] == "stream"
    *channels, personal = response["Grip-Channel"].split(", ")
    assert channels == [
        "events-b; prev-id=2; filter=build-id; filter=skip-users",
        "events-user%3A5; prev-id=1; filter=build-id; filter=skip-users",
        "events-loose-c; filter=skip-users",
    ]
    assert re.fullmatch(
        r"user-anonymous; prev-id=e0\.\d+\.[A-Za-z0-9_-]{22}\+loose-c; filter=require-sub", personal
    )
    assert response["Grip-Set-Meta"] == ('id_format="b:%(events-b)s,user%%3A5:%(events-user%3A5)s"')
    assert response["Grip-Keep-Alive"] == (
        "event: keep-alive\\ndata: \\n\\n; format=cstring; mode=interval; timeout=20"
    )
    assert link(response) == "/events/_next/"
    body = response.content
    assert body.startswith(b":   ")
    assert b"event: stream-open\ndata: \nid: b:2,user%%3A5:0\n\n" in body
    assert body.endswith(b'\n\ndata: "100%%"\nid: b:2,user%%3A5:1\n\n')


def test_a_link_never_leads_to_another_host(settings):
    settings.ROOT_URLCONF = "tests.hand_made_urls"
    response = Client().get(
        "/", headers={"Grip-Sig": signature()}, PATH_INFO="//other.example/a, b/stream/"
    )
    assert link(response) == "/%2Fother.example/a%2C%20b/stream/"


def test_the_period_differs_between_connections(settings):
    periods = {timeout(ask()) for _ in range(50)}
    assert len(periods) > 20
    assert 1440 <= min(periods) <= max(periods) <= 2160
    settings.EVENTSTREAM_RECOVERY_SECONDS = 10**9
    assert timeout(ask()) == 2_147_483


def test_a_user_is_named_by_the_personal_channel_and_found_again():
    user = get_user_model().objects.create(username="alice")
    client = Client()
    client.force_login(user)
    first = ask(client=client)
    assert f"user-{user.pk}; prev-id=e0." in first["Grip-Channel"]
    assert first["Grip-Set-Meta"].startswith(f'user="{user.pk}", id_format=')
    again = ask("/events/_next/", last=last_of(first))
    for header in ("Grip-Hold", "Grip-Channel", "Grip-Set-Meta", "Grip-Keep-Alive"):
        assert again[header] == first[header]
    assert again.content == b""


def test_the_epoch_is_in_the_ids_and_the_personal_channel():
    before = ask()
    epoch = get_storage().begin_epoch()
    response = ask()
    assert f"user-anonymous; prev-id=e{epoch}." in response["Grip-Channel"]
    assert response["Grip-Set-Meta"] == f'id_format="a:%(events-a)s,:{epoch}"'
    old = ask("/events/_next/", last=last_of(before))
    assert b'"reasons": {"a": "epoch"}' in old.content
    assert old.content.endswith(b"id: a:0,:%d\n\n" % epoch)


def test_a_hold_from_zero_begins_at_the_oldest_event_kept_and_stands_in_its_epoch():
    """It was held at the end, told to start over; once held, 0 is a position like any other."""
    log = get_storage()
    send_events([("a", "message", n) for n in range(1, 6)])
    log.trim("a", None, 2, 10)
    epoch = log.begin_epoch()
    response = ask("/events/?channel=a&lastEventId=a:0")
    assert b"id: a:3,:%d\n\ndata: 4\n" % epoch in response.content
    assert b"stream-reset" not in response.content
    assert "events-a; prev-id=5;" in response["Grip-Channel"]
    held = ask("/events/_next/", last=last_of(response, a=0))
    assert b'"reasons": {"a": "expired"}' in held.content


def test_pages_from_zero_of_several_channels_have_all_that_is_kept():
    """Where the second channel begins stands in the token of the first page, with its epoch."""
    send_events([Event(name, "message", f"{n} " + "x" * 30_000) for name in "ab" for n in range(6)])
    for name in "ab":
        get_storage().trim(name, None, 4, 10)
    response, found = ask("/events/?channel=a&channel=b&lastEventId=a:0,b:0"), b""
    while "Grip-Hold" not in response:
        found += response.content
        response = ask(link(response))
    found += response.content
    assert b"stream-reset" not in found
    assert re.findall(rb"data: (\d+) x", found) == [b"2", b"3", b"4", b"5"] * 2


def test_pages_follow_each_other_by_tokens():
    send_events([Event("a", "message", f"{n} " + "x" * 9_000) for n in range(100)])
    response, pages, found = ask("/events/?channel=a&lastEventId=a:0"), 0, b""
    while "Grip-Hold" not in response:
        assert len(response.content) < (90_000 if not pages else 120_000)
        assert "filter=build-id" in response["Grip-Channel"]
        assert "timeout" not in response["Grip-Link"]
        found += response.content
        pages += 1
        response = ask(link(response))
    found += response.content
    assert [int(n) for n in re.findall(rb"data: (\d+) x", found)] == list(range(100))
    assert 8 <= pages <= 12
    assert "events-a; prev-id=100;" in response["Grip-Channel"]
    assert link(response) == "/events/_next/"


def test_a_link_to_a_page_is_good_for_a_minute_and_not_for_hours(monkeypatch):
    """Every client of the proxy can follow it: found in a log, it read on for six hours or more."""
    send_events([Event("a", "message", "x" * 30_000) for _ in range(5)])
    path, now = link(ask("/events/?channel=a&lastEventId=a:0")), time.time()
    for seconds, is_good in (0, True), (59, True), (121, False), (-61, False):
        monkeypatch.setattr(
            "django_eventstream.web.tokens.time.time", lambda seconds=seconds: now + seconds
        )
        assert (b"xxx" in ask(path).content) == is_good


@pytest.mark.parametrize("change", [lambda t: t[:-3] + "abc", lambda t: "x", lambda t: "x:y"])
def test_a_forged_page_ends_the_stream(change):
    send_events([Event("a", "message", "x" * 30_000) for _ in range(5)])
    path = link(ask("/events/?channel=a&lastEventId=a:0"))
    token = path.split("/")[-2]
    assert_ended(ask(path.replace(token, change(token))))


def test_names_too_long_for_a_token_go_out_in_holds(settings):
    letters = [chr(code) for code in range(0x4E00, 0x9FFF)]
    names = sorted("".join(secrets.choice(letters) for _ in range(150)) for _ in range(10))
    send_events([Event(names[0], "message", "x" * 20_000) for _ in range(3)])
    query = "&".join(f"channel={name}" for name in names)
    response = ask(f"/events/?{query}&lastEventId={names[0]}:0")
    assert response["Grip-Hold"] == "stream"
    assert (link(response), timeout(response)) == ("/events/_next/", 1)
    assert f"events-{quote(names[0])}; prev-id=1;" in response["Grip-Channel"]


def test_an_event_too_large_for_a_first_body_follows_by_the_link():
    send_event("a", "message", "x" * 150_000)
    first = ask("/events/?channel=a&lastEventId=a:0")
    assert "Grip-Hold" not in first
    assert b"stream-open" in first.content
    assert len(first.content) < 3_000
    second = ask(link(first))
    assert len(second.content) > 150_000
    assert second["Grip-Hold"] == "stream"


def test_events_left_behind_are_numbered_by_who_looks():
    get_storage().stage([Event("a", "message", "left behind")])
    models.Event.objects.update(created="2020-01-01T00:00:00Z")
    response = ask("/events/_next/", last=proven_last({"a": 0}))
    assert b"data: left behind\nid: a:1\n" in response.content


@pytest.mark.parametrize(
    "last",
    [
        "",
        "events-a; last-id=0",
        "nonsense",
        "events-a; last-id=0, user-1; last-id=kick-1",
        "events-a; last-id=0, user-1; last-id=e0, user-2; last-id=e0",
        "user-anonymous",
    ],
)
def test_a_connection_that_is_not_ours_is_ended_in_silence(last):
    response = ask("/events/_next/", last=last)
    assert (response.status_code, response.content) == (200, b"")
    assert not [name for name in response.headers if name.startswith("Grip-")]


@pytest.mark.parametrize("user", ["999999", "not-a-number", "0", "\0", "9" * 40])
def test_a_user_who_is_not_there_may_read_nothing(user):
    send_event("a", "message", "secret")
    response = ask("/events/_next/", last=proven_last({"a": 0}, user))
    assert response.status_code == 200
    assert b"event: stream-error\n" in response.content
    assert b"forbidden" in response.content
    assert b"secret" not in response.content
    assert "Grip-Hold" not in response
    assert "Grip-Link" not in response


def test_a_channel_that_changed_its_kind_ends_the_connection():
    response = ask("/events/_next/", last=proven_last({"loose-a": 0}))
    assert (response.status_code, response.content) == (200, b"")


def test_a_proxy_asks_again_when_the_manager_or_the_log_fails(settings):
    last = proven_last({"a": 0})
    Moody.problem = RuntimeError("oops")
    assert ask("/events/_next/", last=last).status_code == 503
    Moody.problem = None
    settings.EVENTSTREAM_STORAGE_CLASS = f"{__name__}.AwayStorage"
    assert ask("/events/_next/", last=last).status_code == 503
    first = ask(Accept="text/event-stream")
    assert first.status_code == 200
    assert first.content.startswith(b"event: keep-alive\nretry: ")
    assert "Grip-Hold" not in first


@pytest.mark.parametrize("url", [f"http://h?key={KEY}", "http://h"])
def test_connections_that_the_predecessor_left_to_the_proxy_come_back_by_themselves(settings, url):
    """Its recovery requests bring no cookies: answered as new ones, they would be refused."""
    settings.GRIP_URL = url
    response = ask(PREDECESSORS_LINK)
    assert (response.status_code, response.content) == (200, b"")
    assert not [name for name in response.headers if name.startswith("Grip-")]


@pytest.mark.parametrize("url", [f"http://h?key={KEY}", "http://h"])
def test_a_connection_that_the_predecessor_left_is_told_where_it_stands_as_it_goes(settings, url):
    """It gave no id to those who had no event yet: they had come back without a position."""
    settings.GRIP_URL = url
    response = ask(PREDECESSORS_LINK, last="events-user%3A5; last-id=3, events-a; last-id=0")
    assert response.content == b"event: keep-alive\nid: a:0,user%%3A5:3\n\n"
    assert "filter=build-id" in response["Grip-Channel"]
    assert not {"Grip-Hold", "Grip-Link"} & set(response.headers)


def test_who_is_no_proxy_is_told_nothing_of_a_predecessors_connection():
    response = ask(PREDECESSORS_LINK, last="events-a; last-id=0", sig="forged")
    assert (response.status_code, response.content) == (200, b"")


def test_an_error_is_told_and_nothing_is_held():
    response = ask("/events/")
    assert b"No channels specified" in response.content
    assert "Grip-Hold" not in response


def test_recovery_needs_no_login(settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    last = proven_last({"a": 0})
    assert ask("/events/_next/", last=last)["Grip-Hold"] == "stream"


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda: "", b"it came past the GRIP proxy"),
        (lambda: "x.y.z", b"another key"),
        (lambda: signature("x" * 32), b"another key"),
        (lambda: signature(exp=time.time() - 1), b"has expired"),
        (lambda: jwt.encode({"iss": "pushpin"}, KEY), b"has expired, or never does"),
        (lambda: jwt.encode({"exp": time.time() + 60}, "", algorithm="none"), b"another key"),
        (lambda: "é" * 10, b"another key"),
        # PyJWT up to 2.13 lets a RecursionError out, and each such request was status 500.
        (lambda: urlsafe_b64encode(b"[" * 3000).decode() + ".e30.eA", b"another key"),
    ],
)
def test_what_the_key_did_not_sign_is_not_a_proxy_and_the_answer_says_why(forge, reason):
    """It said to set GRIP_URL, which was set."""
    last = proven_last({"a": 0})
    assert ask("/events/_next/", last=last, sig=forge()).status_code == 403
    answer = ask(sig=forge())
    assert answer.status_code == 501
    assert reason in answer.content


def test_a_proxy_that_does_not_sign_is_told_from_none_and_from_one_of_another_issuer(settings):
    unsigned = Client().get("/events/?channel=a", headers={"Grip-Feature": "status"})
    assert b"does not sign" in unsigned.content
    settings.GRIP_URL = f"http://h?verify-key={KEY}&verify-iss=fastly:1"
    assert b"another issuer" in ask().content
    settings.GRIP_PROXIES = [{"control_uri": "http://h", "verify_key": OTHER}]
    assert b"another issuer" in ask().content
    assert b"another key" in ask(sig=signature("x" * 32)).content
    settings.GRIP_URL = settings.GRIP_PROXIES = None
    settings.GRIP_PROXY_REQUIRED = True
    assert b"no GRIP proxy is configured" in ask().content


def test_the_log_says_once_a_minute_why_requests_are_not_taken_for_a_proxys(caplog, monkeypatch):
    proxy._log.cache_clear()
    now = 1e6
    monkeypatch.setattr("django_eventstream.web.proxy.time.monotonic", lambda: now)
    said = lambda: [r.getMessage() for r in caplog.records if r.name == proxy.__name__]  # noqa: E731
    for _ in range(3):
        assert ask(sig=signature("x" * 32)).status_code == 501
        assert ask("/events/_next/", sig=signature("x" * 32)).status_code == 403
    [message] = said()
    assert "Set sig_key in pushpin.conf" in message
    assert ask("/events/_next/", sig="").status_code == 403
    assert len(said()) == 1
    now += 60
    assert ask(sig=signature("x" * 32)).status_code == 501
    assert len(said()) == 2


def test_a_server_that_streams_by_itself_reports_a_wrong_key_as_well(caplog):
    """The proxy was of no use, and nobody heard of it."""
    proxy._log.cache_clear()
    request = AsyncRequestFactory().get(
        "/events/?channel=a", headers={"Grip-Sig": signature("x" * 32)}
    )
    assert events(request).status_code == 200
    assert "another key" in caplog.text


def test_a_signature_is_not_good_for_longer_than_it_says():
    short = signature(exp=time.time() + 4)
    assert ask(sig=short).status_code == 200
    deadline = time.monotonic() + HEALTHY
    while ask(sig=short).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert ask(sig=short).status_code == 501


@pytest.mark.parametrize(
    ("url", "proxies", "common", "keys"),
    [
        (f"http://h?key={KEY}", [], None, [KEY]),
        ("http://h", [], KEY, [KEY]),
        ("http://h?key=publish&verify-key=" + KEY, [], None, [KEY]),
        (None, [{"control_uri": "http://h", "verify_key": KEY}], None, [KEY]),
        (f"http://h?key={KEY}", [{"control_uri": "http://i", "key": OTHER}], None, [KEY, OTHER]),
        (f"http://h?key={KEY}", [{"control_uri": "http://i"}], None, [KEY]),
    ],
)  # fmt: skip
def test_every_way_to_set_a_key(settings, url, proxies, common, keys):
    settings.GRIP_URL, settings.GRIP_PROXIES, settings.GRIP_VERIFY_KEY = url, proxies, common
    for key in keys:
        assert ask(sig=signature(key))["Grip-Hold"] == "stream"
    assert ask(sig=signature("x" * 32)).status_code == 501


def test_the_issuer_is_checked_where_one_is_set(settings):
    settings.GRIP_URL = f"http://h?verify-key={KEY}&verify-iss=fastly:1"
    assert ask(sig=signature(iss="fastly:1")).status_code == 200
    assert ask(sig=signature(iss="fastly:2")).status_code == 501


def test_a_public_key_is_not_taken_for_a_shared_one(settings):
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    settings.GRIP_URL = None
    settings.GRIP_PROXIES = [{"control_uri": "http://h", "verify_key": public}]
    good = jwt.encode({"exp": time.time() + 60}, private, algorithm="ES256")
    assert ask(sig=good)["Grip-Hold"] == "stream"
    assert ask(sig=signature("x" * 32)).status_code == 501


def test_without_a_proxy_a_signature_means_nothing(settings):
    settings.GRIP_URL = None
    assert ask().status_code == 501
    assert ask("/events/_next/", last="events-a; last-id=0").status_code == 403


class TestWithoutKey:
    @pytest.fixture(autouse=True)
    def keyless(self, settings, keyed):
        settings.GRIP_URL = "http://127.0.0.1:1"

    @pytest.fixture
    def alice(self):
        client = Client()
        client.force_login(get_user_model().objects.create(username="alice"))
        return client

    def test_all_streams_have_one_link_and_equal_audiences_share_a_request(self, alice):
        held = [ask("/events/?channel=a&channel=b") for _ in range(3)]
        held += [ask("/events/?channel=a"), ask("/events/?channel=a&channel=b", client=alice)]
        assert {link(response) for response in held} == {"/events/_next/"}
        assert len({last_of(response) for response in held[:3]}) == 1
        assert len({last_of(response) for response in held}) == 3

    def test_a_visitor_gets_what_was_missed_and_no_other_channel(self):
        send_events([("a", "message", 1), ("b", "message", "secret")])
        last = last_of(ask(), a=0)
        response = ask("/events/_next/", last=last)
        assert b"data: 1\n" in response.content
        assert "user-anonymous" in response["Grip-Channel"]
        for forged in (f"{last}, events-b; last-id=0", last.replace("events-a", "events-b")):
            assert_ended(ask("/events/_next/", last=forged))

    def test_a_visitor_is_believed_for_hours_and_not_for_ever(self, monkeypatch):
        last, now = last_of(ask()), time.time()
        monkeypatch.setattr("django_eventstream.web.proofs.time.time", lambda: now + 80 * 60)
        assert ask("/events/_next/", last=last)["Grip-Hold"] == "stream"
        monkeypatch.setattr("django_eventstream.web.proofs.time.time", lambda: now + 180 * 60)
        assert_ended(ask("/events/_next/", last=last))

    @pytest.mark.parametrize("proof", ["", "x", ".", "1.x", "x.y", "9" * 25 + ".x"])
    def test_an_unproven_position_is_told_nothing(self, proof):
        send_event("a", "message", 1)
        assert_ended(
            ask("/events/_next/", last=f"events-a; last-id=0, user-anonymous; last-id=e0.{proof}")
        )

    def test_a_proof_of_the_time_with_a_key_is_none_without(self, settings):
        without = last_of(ask())
        settings.GRIP_URL = f"http://127.0.0.1:1?iss=me&key={KEY}"
        assert_ended(ask("/events/_next/", last=without))
        with_key = last_of(ask())
        settings.GRIP_URL = "http://127.0.0.1:1"
        assert_ended(ask("/events/_next/", last=with_key))

    def test_a_proxy_takes_a_users_stream_over_and_soon_it_ends_when_it_is_asked_for(
        self, alice, monkeypatch
    ):
        """Pushpin asks a second after a channel had its first reader. To end the stream then
        would let the client come back once a second for ever."""
        send_event("a", "message", 1)
        first, now = ask(client=alice), time.time()
        again = ask("/events/_next/", last=last_of(first))
        assert (again["Grip-Hold"], again.content) == ("stream", b"")
        for name in ("Grip-Channel", "Grip-Set-Meta", "Grip-Keep-Alive"):
            assert again[name] == first[name]
        assert ask("/events/_next/", last=last_of(again))["Grip-Hold"] == "stream"
        monkeypatch.setattr("django_eventstream.web.proofs.time.time", lambda: now + 60)
        assert_ended(ask("/events/_next/", last=last_of(again)))

    def test_nothing_that_a_user_missed_is_told_to_who_asks_in_the_proxys_name(self, alice):
        """A link with a signed token told it for six to twelve hours, also after the user had
        logged out: whoever sends any `Grip-Sig` was told the link."""
        last = last_of(ask(client=alice))
        send_event("a", "message", "secret")
        assert_ended(ask("/events/_next/", last=last))

    def test_a_visitor_whose_request_the_manager_looked_at_is_no_visitor_like_all(self, settings):
        """A signature in the URL was asked for once, and never by who sent the link again."""
        settings.EVENTSTREAM_CHANNELMANAGER_CLASS = f"{__name__}.Looking"
        last = last_of(ask())
        assert ask("/events/_next/", last=last)["Grip-Hold"] == "stream"
        send_event("a", "message", "secret")
        assert_ended(ask("/events/_next/", last=last))

    @pytest.mark.parametrize("url", ["/signed/?sig=ok", "/viewset/?sig=ok"])
    def test_a_rule_in_front_of_the_view_is_not_asked_once_for_hours(self, settings, url):
        """A decorator or a permission class looked at a signature in the URL, and whoever sent
        what the proxy had been told was told the events for hours, without any."""
        settings.ROOT_URLCONF = GUARDED
        assert ask(url.partition("?")[0]).status_code == 403
        last = last_of(ask(url))
        assert ask("/events/_next/", last=last)["Grip-Hold"] == "stream"
        send_event("a", "message", "secret")
        assert_ended(ask("/events/_next/", last=last))
        assert_ended(ask("/events/_next/", last=f"{last}.open"))

    def test_a_user_who_may_not_read_any_more_is_not_taken_over(self, alice):
        last = last_of(ask(client=alice))
        get_user_model().objects.update(is_active=False)
        response = ask("/events/_next/", last=last)
        assert b"forbidden" in response.content
        assert "Grip-Hold" not in response

    def test_a_users_long_history_comes_in_parts_that_the_user_asks_for(self, alice):
        """The link to the next page was enough to read it."""
        sizes = [9_000] * 30 + [150_000] + [9_000] * 10
        send_events([Event("a", "message", f"{n} " + "%" * m) for n, m in enumerate(sizes)])
        found, retries, position, is_held = [], [], "a:0", False
        while not is_held:
            response = ask(f"/events/?channel=a&lastEventId={position}", client=alice)
            is_held = "Grip-Hold" in response
            body = response.content.replace(b"%%", b"%") if is_held else response.content
            found += [(int(n), len(m)) for n, m in re.findall(rb"data: (\d+) (%*)\n", body)]
            position = re.findall(rb"id: (a:\d+)\n", body)[-1].decode()
            retries.append(int(re.search(rb"retry: (\d+)\n", body)[1]))
            assert is_held == ("Grip-Link" in response) == ("Grip-Channel" in response)
        assert found == list(enumerate(sizes))
        assert 4 < len(retries) < 10
        assert set(retries[:-1]) == {100}
        assert 1_000 <= retries[-1] <= 5_000

    def test_a_page_for_a_user_is_not_told_when_the_key_is_gone(self, settings, alice):
        send_events([Event("a", "message", "x" * 30_000) for _ in range(5)])
        settings.GRIP_URL = f"http://127.0.0.1:1?iss=me&key={KEY}"
        path = link(ask("/events/?channel=a&lastEventId=a:0", client=alice))
        assert b"xxx" in ask(path).content
        settings.GRIP_URL = "http://127.0.0.1:1"
        assert_ended(ask(path))

    def test_other_things_signed_by_the_project_are_no_tokens(self):
        forged = signing.dumps({"u": None, "r": ["a"], "v": [], "t": 0})
        response = ask(f"/events/_next/{forged}/")
        assert (response.status_code, response.content) == (200, b"")

    def test_streams_routed_by_hand_say_what_is_missing(self, settings):
        settings.ROOT_URLCONF = "tests.hand_made_urls"
        assert b"include('django_eventstream.urls')" in ask("/rooms/a/").content
