"""The first stream of a process has said what nobody ran `check` for."""

from __future__ import annotations

import logging
import threading

import pytest
from django.core.checks import register
from django.core.checks.registry import registry

from django_eventstream import processes
from django_eventstream.conf import CHECK_TAG
from django_eventstream.web import first_stream
from django_eventstream.web.first_stream import FirstStream
from tests.services.deadline import wait_until
from tests.sse_client import StreamClient


def reports(caplog) -> list[str]:
    for thread in threading.enumerate():
        if thread.name == "eventstream-checks":
            thread.join(30)
            assert not thread.is_alive()
    return [
        record.getMessage() for record in caplog.records if record.name == first_stream.__name__
    ]


def test_mistakes_are_logged_once_in_each_process(settings, caplog):
    settings.EVENT_STREAM_CHANNELMANAGER_CLASS = "mysite.channels.Manager"
    settings.EVENTSTREAM_CHANNEL_LIMIT = 0
    settings.SILENCED_SYSTEM_CHECKS = ["eventstream.E004"]
    settings.EVENTSTREAM_ALLOW_CREDENTIALS = "silenced"
    first = FirstStream()
    for _ in range(3):
        first.check()
    # Django keeps its checks in a set, which has no order.
    said = sorted(reports(caplog))
    assert len(said) == 2
    assert said[0].startswith("eventstream.E003: EVENTSTREAM_CHANNEL_LIMIT must be")
    assert "Did you mean EVENTSTREAM_CHANNELMANAGER_CLASS?" in said[1]
    # As in a child of a server that loads the project before it forks.
    processes._begin_anew()
    first.check()
    assert len(reports(caplog)) == 4


def test_a_project_without_mistakes_hears_nothing(caplog):
    FirstStream().check()
    assert reports(caplog) == []


def test_checks_that_fail_are_no_failure_of_the_stream(caplog):
    @register(CHECK_TAG)
    def failing(**kwargs):
        raise LookupError("not even this")

    try:
        FirstStream().check()
        [message] = reports(caplog)
    finally:
        registry.registered_checks.discard(failing)
    assert "not even this" in message


def test_checks_that_hang_hold_nobody_up(caplog):
    caplog.set_level(logging.INFO)
    released = threading.Event()

    @register(CHECK_TAG)
    def hanging(**kwargs):
        released.wait(60)
        return []

    try:
        FirstStream().check()
        assert [t for t in threading.enumerate() if t.name == "eventstream-checks" and t.daemon]
    finally:
        released.set()
        registry.registered_checks.discard(hanging)
    assert reports(caplog) == []


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn+wrapper"])
def test_behind_a_server_a_misspelt_channel_manager_is_told_of(
    app_server, sqlite_only, unique_channel, kind
):
    """Every channel was open to everybody, in silence."""
    misspelt = {"EVENT_STREAM_CHANNELMANAGER_CLASS": "tests.proxied.MembersOnly"}
    server = app_server(sqlite_only, kind, settings=misspelt)
    for _ in range(2):
        with StreamClient(f"{server.url}/events/?channel={unique_channel}") as client:
            client.wait_open()
    told = lambda: server.log_text().count("Did you mean EVENTSTREAM_CHANNELMANAGER_CLASS?")  # noqa: E731
    wait_until(told, 30)
    assert told() == 1
