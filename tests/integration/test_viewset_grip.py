"""The view set behind a proxy, in a project that includes no other URL of ours."""

from __future__ import annotations

import re
import time

import jwt
import pytest
from django.contrib.auth import get_user_model
from django.core.handlers.base import BaseHandler
from django.db import connections
from django.test import Client
from django.urls import include, path, resolve

from django_eventstream import send_events
from tests import drf
from tests.grip_last import last_of
from tests.outlets import close_outlets

KEY = "k" * 32
urlpatterns = [path("api/", include(drf.router.urls))]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def behind_a_proxy(settings):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "rest_framework"]
    settings.ROOT_URLCONF = __name__
    settings.GRIP_URL = f"http://127.0.0.1:1?iss=me&key={KEY}"
    yield
    close_outlets()


def ask(url, **headers):
    signature = jwt.encode({"iss": "pushpin", "exp": time.time() + 60}, KEY)
    return Client().get(url, headers={"Grip-Sig": signature, **headers})


def link(response) -> str:
    return re.match("<(.*?)>", response["Grip-Link"])[1]


def test_the_proxy_asks_at_the_address_of_the_stream_without_the_clients_credentials():
    anna = get_user_model().objects.create(username="anna")
    send_events([("a", "message", 1), ("a", "message", 2)])
    held = ask("/api/private/?channels=a", Authorization="Name anna")
    assert (held["Grip-Hold"], link(held)) == ("stream", "/api/private/")
    assert f"user-{anna.pk}" in held["Grip-Channel"]
    last = last_of(held, a=1)
    missed = ask(link(held), **{"Grip-Last": last})
    assert missed.status_code == 200
    assert b"id: a:2" in missed.content.replace(b"%%", b"%")
    assert b"data: 1" not in missed.content
    anna.delete()
    assert b"stream-error" in ask(link(held), **{"Grip-Last": last}).content


def test_somebody_who_only_claims_to_be_a_proxy_is_asked_who_they_are():
    answer = Client().get(
        "/api/private/?channels=a",
        headers={"Grip-Sig": "x", "Grip-Last": "events-a; last-id=1, user-1; last-id=e0"},
    )
    assert answer.status_code == 401


def test_refusals_are_told_to_the_client_and_hold_nothing():
    answer = ask("/api/ofclass/?channels=b")
    assert answer.status_code == 400
    assert "Grip-Hold" not in answer
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("url", ["/api/events/", "/api/events/a/", "/api/configured/"])
def test_the_views_are_marked_like_the_plain_one(url):
    view, plain = resolve(url).func, resolve("/events/", "tests.urls").func
    for mark in ("_non_atomic_requests", "_answers_with_event_streams"):
        assert getattr(view, mark) == getattr(plain, mark)


@pytest.mark.parametrize("url", ["/api/events/", "/events/", "/events/_next/"])
def test_no_database_has_a_transaction_for_a_stream(url, monkeypatch):
    """One with ATOMIC_REQUESTS had, unless it was the one called default."""
    atomic = {**connections.settings["default"], "ATOMIC_REQUESTS": True}
    monkeypatch.setitem(connections.settings, "default", atomic)
    monkeypatch.setitem(connections.settings, "other", atomic)
    view = resolve(url, "tests.drf").func
    assert BaseHandler().make_view_atomic(view) is view
    assert BaseHandler().make_view_atomic(drf.page) is not drf.page
