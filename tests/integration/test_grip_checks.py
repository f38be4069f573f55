"""Checks of the proxies' keys, and of what makes recovery slow."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks

from django_eventstream.checks.messages import TAG

KEY = "k" * 32
PEM = b"-----BEGIN PUBLIC KEY-----\n..."


def found() -> list[str]:
    return sorted(
        message.id
        for message in run_checks(tags=[TAG])
        if message.id.startswith(("eventstream.E10", "eventstream.W10"))
    )


def test_a_proxy_with_a_good_key_is_fine(settings):
    settings.GRIP_URL = f"http://localhost:5561?iss=me&key={KEY}"
    settings.GRIP_PROXY_REQUIRED = True
    assert found() == []


def test_without_a_proxy_there_is_nothing_to_say(settings):
    settings.EVENTSTREAM_CHANNEL_LIMIT = 50
    settings.ROOT_URLCONF = "tests.hand_made_urls"
    assert found() == []


@pytest.mark.parametrize(
    ("configured", "ids"),
    [
        ({"GRIP_PROXY_REQUIRED": True}, ["E101"]),
        (
            {"GRIP_URL": f"http://h?key={KEY}", "GRIP_PROXIES": [{"control_uri": "http://i"}]},
            ["E102"],
        ),
        ({"GRIP_URL": "http://h?key=changeme"}, ["W104"]),
        ({"GRIP_URL": f"http://h?key={KEY}", "ROOT_URLCONF": "tests.hand_made_urls"}, ["W105"]),
        ({"GRIP_URL": f"http://h?key={KEY}", "ROOT_URLCONF": "tests.argument_urls"}, ["W105"]),
        ({"GRIP_URL": f"http://h?key={KEY}", "EVENTSTREAM_CHANNEL_LIMIT": 20}, ["W106"]),
        ({"GRIP_URL": f"http://h?key={KEY}", "GRIP_PREFIX": "a, b"}, ["E107"]),
        ({"GRIP_URL": f"http://h?key={KEY}", "GRIP_PREFIX": "ü-"}, ["E107"]),
        ({"GRIP_URL": f"http://h?key={KEY}", "GRIP_PREFIX": "site_1:"}, []),
        ({"GRIP_PROXIES": [{"key": KEY}]}, []),
    ],
)
def test_a_mistake_is_found(settings, configured, ids):
    for name, value in configured.items():
        setattr(settings, name, value)
    assert found() == [f"eventstream.{id}" for id in ids]  # noqa: A001


def test_a_public_key_needs_cryptography(settings, monkeypatch):
    settings.GRIP_PROXIES = [{"control_uri": "http://h", "verify_key": PEM}]
    assert found() == []
    monkeypatch.setattr("django_eventstream.checks.grip.find_spec", lambda name: None)
    assert found() == ["eventstream.E103"]
