"""Everybody comes back at once, and has missed something."""

from __future__ import annotations

import django
import pytest

from django_eventstream import send_events
from django_eventstream.hub.authorizations import AT_ONCE
from tests.services.census import census
from tests.sse_client import numbered
from tests.swarm import Swarm

CLIENTS = 1_000
BEHIND = 50

LOGGED_IN = 200
LIMIT = 20

# The clock that asks for news is set so slow that only what the storm costs is counted.
NO_CLOCK = {"EVENTSTREAM_POLL_SECONDS": 600, "EVENTSTREAM_POSTGRES_NOTIFY": False}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lane", ["", "wrapper", "around-channels"])
def test_two_hundred_users_who_come_at_once_leave_connections_to_others(
    app_server, postgres_only, unique_channel, lane
):
    """Each looks up its session: without a limit PostgreSQL turns half of them away.

    Each had a thread in the plain lane, and other pages failed. There it still has one for a moment
    where Django 6.1 calls the sync receivers of `request_started` before it asks ours.
    """
    strict = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager"}
    server = app_server(postgres_only, f"uvicorn+{lane}", settings={**NO_CLOCK, **strict})
    headers = server.log_in("anna")
    url = f"{server.url}/events/?channel=private-anna&channel={unique_channel}"
    with (
        census(server.stats()["pid"]) as most,
        Swarm([url] * LOGGED_IN, headers=headers, retry=None) as swarm,
    ):
        server.request("/login/bert/", timeout=60)
        swarm.wait_for(lambda member: member.is_open, timeout=120)
        server.send(*numbered(unique_channel, [1]))
        swarm.wait_for(lambda c: c.has(unique_channel, 1), timeout=60)
        assert [len(member.connections) for member in swarm.members] == [1] * LOGGED_IN
    # The hub has one connection, and some more while it asks again who may read.
    assert 1 < server.stats()["most_connections"] <= LIMIT + 1 + AT_ONCE
    assert most.looks > 1
    assert most.staying_threads <= 5 * LIMIT
    if lane or django.VERSION < (6, 1):
        assert most.threads <= 5 * LIMIT
    assert "OperationalError" not in server.log_text()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn+wrapper"])
def test_a_thousand_clients_come_back_to_a_new_process_and_all_catch_up(
    app_server, postgres_only, unique_channel, kind
):
    """5.3.4: 100 of 1,000 ever caught up, the connections of PostgreSQL being used up."""
    with postgres_only.as_default():
        send_events(numbered(unique_channel, [1]))
    server = app_server(postgres_only, kind, settings=NO_CLOCK)
    url = f"{server.url}/events/?channel={unique_channel}"
    with Swarm([url] * CLIENTS, last_event_id=f"{unique_channel}:0", retry=0.5) as swarm:
        swarm.wait_for(lambda c: c.has(unique_channel, 1), timeout=120)
        server.kill()
        with postgres_only.as_default():
            send_events(numbered(unique_channel, range(2, BEHIND + 2)))
        server.start()
        swarm.wait_for(lambda c: c.has(unique_channel, BEHIND + 1), timeout=120)
        for member in swarm.members:
            assert member.numbers(unique_channel) == list(range(1, BEHIND + 2))
            assert member.of_type("stream-reset") == []
        assert sum(server.stats()["log_statements"].values()) <= 5
