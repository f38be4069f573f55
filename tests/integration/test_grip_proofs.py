"""What a recovery request says is believed if it is proven, however it came through the proxy."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth import get_user_model
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.test import Client, RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from django_eventstream import EventRequest, get_events, send_event
from django_eventstream.cursors import Cursor
from django_eventstream.grip import Position
from django_eventstream.web import proofs
from django_eventstream.web.proofs import is_proven, prove
from django_eventstream.web.proxy import is_recovery, position_of
from tests.grip_last import last_of, proven_last, written
from tests.integration.test_grip_answers import (  # noqa: F401 - a fixture
    ask,
    assert_ended,
    keyed,
    signature,
)
from tests.services.deadline import HEALTHY

POSITION = Position("7", frozenset("ab"), frozenset("c"), Cursor({"a": 3, "b": 4}, 9))
pytestmark = pytest.mark.django_db(transaction=True)


def test_a_proof_fits_a_header_and_is_the_same_for_equal_audiences():
    first, again = (
        prove(POSITION, is_open=True),
        prove(replace(POSITION, cursor=Cursor({"a": 8}, 9)), is_open=True),
    )
    assert first.proof == again.proof
    assert re.fullmatch(r"\d{10}\.[A-Za-z0-9_-]{22}", first.proof)
    assert is_proven(first)
    assert is_proven(again)


@pytest.mark.parametrize(
    "changed",
    [
        {"user_id": "8"},
        {"user_id": None},
        {"user_id": ""},
        {"reliable": frozenset("a")},
        {"reliable": frozenset("abc")},
        {"reliable": frozenset(["a,b"])},
        {"unreliable": frozenset()},
        {"unreliable": frozenset("abc")},
        {"reliable": frozenset("abc"), "unreliable": frozenset()},
        {"cursor": Cursor({"a": 3, "b": 4}, 8)},
        {"proof": ""},
        {"proof": "x" * 22},
        {"proof": f"{int(time.time())}.{'x' * 22}"},
        {"proof": "é"},
    ],
)
def test_a_proof_is_for_nothing_else(changed):
    assert not is_proven(replace(prove(POSITION, is_open=True), **changed))


def test_a_visitor_is_not_a_user_called_none():
    for name in ("None", "null", "", "anonymous"):
        nobody = prove(replace(POSITION, user_id=None), is_open=True)
        assert not is_proven(replace(nobody, user_id=name))


def test_a_proof_is_believed_for_some_hours(settings, monkeypatch):
    """One that got into an error report would do for ever."""
    proven, now = prove(POSITION, is_open=True), time.time()

    def is_proven_after(minutes: int) -> bool:
        monkeypatch.setattr(proofs.time, "time", lambda: now + minutes * 60)
        return is_proven(proven)

    # Until the proxy has asked for an idle connection, which it does after up to 72 minutes.
    assert is_proven_after(80)
    assert not is_proven_after(180)
    assert not is_proven(replace(proven, proof=f"{int(now) + 180 * 60}{proven.proof[10:]}"))
    settings.EVENTSTREAM_RECOVERY_SECONDS = 24 * 60 * 60
    assert is_proven_after(2 * 24 * 60)


@given(st.text(max_size=40))
def test_any_text_for_a_proof_is_refused(text):
    assert not is_proven(replace(POSITION, proof=text))


def test_a_proof_is_for_one_site_and_its_keys(settings):
    proven = prove(POSITION, is_open=True)
    settings.GRIP_PREFIX = "other-"
    assert not is_proven(proven)
    settings.GRIP_PREFIX = ""
    old, settings.SECRET_KEY = settings.SECRET_KEY, "another-secret-key"
    assert not is_proven(proven)
    settings.SECRET_KEY_FALLBACKS = ["yet-another", old]
    assert is_proven(proven)
    assert prove(POSITION, is_open=True).proof != proven.proof


@pytest.fixture
def alice():
    return get_user_model().objects.create(username="alice")


def forged_for(victim, mallory) -> list[str]:
    """What a client can say that knows the names, and the proof of a connection of its own."""
    own = proven_last({"a": 0}, str(mallory.pk))
    personal = own.partition(", ")[2]
    own_id = personal.partition("last-id=")[2]
    return [
        f"events-own; last-id=0, user-{victim.pk}; last-id=e0",
        f"events-own; last-id=0, user-{victim.pk}; last-id={own_id}",
        f"events-own; last-id=0, {personal}",
        f"events-own; last-id=0, {own}",
        f"events-own; last-id=0, user-{victim.pk}; last-id=e0, {personal}",
        f"events-a; last-id=0, user-{victim.pk}; last-id={own_id}",
        f"events-a; last-id=0, user-{victim.pk}; last-id=e0, {personal}",
        f"events-a; last-id=0, {personal}+own",
    ]


@pytest.mark.parametrize("path", ["/events/_next/", "/events/?channel=a"])
def test_a_position_that_a_client_wrote_is_answered_by_nothing(path, alice):
    """The signature was taken for the proxy's word on all headers. It removes `Grip-Last` from what
    clients send, and lets `Grip_Last` pass, which uWSGI, cheroot and Granian's WSGI take for the
    same: `events-own; last-id=0, user-7; last-id=e0` gave user 7's history to anybody."""
    mallory = get_user_model().objects.create(username="mallory")
    send_event("own", "message", "secret")
    send_event("a", "message", "common")
    for last in forged_for(alice, mallory):
        for client in Client(), Client():
            assert_ended(ask(path, last=last, client=client))
            client.force_login(mallory)
    assert b"secret" in ask("/events/_next/", last=proven_last({"own": 0}, str(alice.pk))).content


def test_an_event_request_believes_no_more(alice, rf: RequestFactory):
    mallory = get_user_model().objects.create(username="mallory")
    headers = {"Grip-Sig": signature()}
    for last in forged_for(alice, mallory):
        request = rf.get("/events/?channel=a", headers={**headers, "Grip-Last": last})
        with pytest.raises(EventRequest.GripError):
            EventRequest(request)
    last = proven_last({"own": 0}, str(alice.pk))
    request = rf.get("/events/", headers={**headers, "Grip-Last": last})
    assert get_events(EventRequest(request)).channel_items == {"own": []}


def test_a_proof_of_another_site_on_the_same_proxy_is_not_believed(settings):
    settings.GRIP_PREFIX = "one-"
    last = proven_last({"a": 0})
    settings.GRIP_PREFIX = ""
    assert_ended(ask("/events/_next/", last=last.replace("one-", "")))
    settings.GRIP_PREFIX = "one-"
    assert ask("/events/_next/", last=last)["Grip-Hold"] == "stream"


def test_a_connection_of_before_the_proofs_is_ended(alice):
    position = Position(str(alice.pk), frozenset("a"), frozenset(), Cursor({"a": 0}))
    assert_ended(ask("/events/_next/", last=written(position)))


def test_the_end_of_a_predecessors_connection_proves_nothing():
    """Anybody can ask for it, of any channels: a proof in it would be good for them."""
    ended = ask("/events/?es-meta=x", last="events-own; last-id=0")
    assert ended.content == b"event: keep-alive\nid: own:0\n\n"
    assert "user-anonymous; prev-id=e0;" in ended["Grip-Channel"]
    assert_ended(ask("/events/_next/", last=last_of(ended)))


def test_an_answer_that_ends_a_stream_proves_nothing(alice):
    last = proven_last({"a": 0}, str(alice.pk))
    alice.delete()
    ended = ask("/events/_next/", last=last)
    assert b"forbidden" in ended.content
    assert "prev-id=e0;" in ended["Grip-Channel"]


def scope_of(path: str, *headers: tuple[bytes, bytes]):
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"host", b"testserver"), (b"grip-sig", signature().encode()), *headers],
    }


AMBIGUOUS = [b"grip_last", b"Grip_Last", b"grip_sig", b"grip-hold_x"]


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_asgi_shows_names_with_underscores_and_what_comes_with_them_is_refused(name, rf):
    last = proven_last({"a": 0}).encode()
    plain = ASGIRequest(scope_of("/events/_next/", (b"grip-last", last)), rf.get("/"))
    assert position_of(plain) is not None
    assert is_recovery(plain)
    both = ASGIRequest(scope_of("/events/_next/", (b"grip-last", last), (name, last)), rf.get("/"))
    assert position_of(both) is None
    assert not is_recovery(both)


def test_an_asgi_client_that_writes_underscores_gets_its_own_stream(alice):
    last = proven_last({"own": 0}, str(alice.pk)).encode()
    send_event("own", "message", "secret")
    start, body = answer_of(scope_of("/events/?channel=a", (b"grip_last", last)))
    assert b"secret" not in body
    channels = dict(start["headers"])[b"Grip-Channel"]
    assert channels.startswith(b"events-a; prev-id=0; ")
    assert b", user-anonymous; " in channels
    start, body = answer_of(scope_of("/events/_next/", (b"grip_last", last)))
    assert (start["status"], body) == (200, b"")


@async_to_sync
async def answer_of(scope) -> tuple[dict, bytes]:
    application = ApplicationCommunicator(ASGIHandler(), scope)
    await application.send_input({"type": "http.request", "body": b""})
    start = await application.receive_output(10)
    body = await application.receive_output(10)
    await application.wait(HEALTHY)
    return start, body["body"]
