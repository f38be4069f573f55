"""Who gets what: permissions that change, and users who skip an event."""

from __future__ import annotations

import json

import pytest

from tests.services.deadline import AT_ONCE
from tests.services.python import run_python
from tests.sse_client import StreamClient, numbered

MANAGER = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager"}

CHANGE = """
import sys
from django.contrib.auth import get_user_model
from django.db import transaction
from django_eventstream import channel_permission_changed
name, is_staff, *channels = sys.argv[1:]
with transaction.atomic():
    user = get_user_model().objects.get(username=name)
    user.is_staff = is_staff == "staff"
    user.save()
    for channel in channels:
        channel_permission_changed(user, channel)
"""

SEND = """
import sys, json
from django.contrib.auth import get_user_model
from django_eventstream import send_event
channel, name, events = sys.argv[1:]
user = get_user_model().objects.get(username=name)
for number in json.loads(events):
    skipped = [user.pk] if number % 3 == 0 else None
    send_event(channel, "message", {"channel": channel, "n": number}, skip_user_ids=skipped)
"""


@pytest.fixture(params=["uvicorn", "daphne", "uvicorn+wrapper"])
def server(request, app_server, sqlite_only):
    return app_server(sqlite_only, request.param, settings=MANAGER)


def test_a_permission_taken_away_by_another_process_ends_the_users_streams_at_once(
    server, sqlite_only, unique_channel
):
    channel, other = f"staff-{unique_channel}", unique_channel
    anna, bert = server.log_in("anna"), server.log_in("bert")
    environment = {"database": sqlite_only.settings, "settings": MANAGER}
    for name in ("anna", "bert"):
        run_python(CHANGE, name, "staff", **environment)
    url = f"{server.url}/events/?channel={channel}&channel={other}"
    with (
        StreamClient(url, headers=anna) as annas,
        StreamClient(url, headers=bert) as berts,
        StreamClient(f"{server.url}/events/?channel={other}", headers=anna) as elsewhere,
    ):
        for client in (annas, berts, elsewhere):
            client.wait_open()
        run_python(CHANGE, "anna", "staff", channel, **environment)
        run_python(CHANGE, "anna", "nobody", channel, **environment)
        annas.wait_for(lambda c: c.of_type("stream-error"), timeout=AT_ONCE)
        [error] = annas.of_type("stream-error")
        assert error.last_event_id == "error"
        assert error.json() == {
            "condition": "forbidden",
            "text": f"Permission denied to channels: {channel}",
            "channels": [channel],
        }
        annas.wait_for(lambda c: len(c.connections) > 1 and c.connections[1].status)
        assert annas.connections[1].status == 400
        server.send(*numbered(channel, [1]), *numbered(other, [1]))
        berts.wait_for(lambda c: c.has(channel, 1))
        elsewhere.wait_for(lambda c: c.has(other, 1))
        assert annas.events == []
        assert len(berts.connections) == len(elsewhere.connections) == 1


def test_skipped_users_do_not_get_the_event_live_or_replayed(server, sqlite_only, unique_channel):
    anna, bert = server.log_in("anna"), server.log_in("bert")
    url = f"{server.url}/events/?channel={unique_channel}"

    def send(*numbers: int) -> None:
        arguments = (unique_channel, "anna", json.dumps(numbers))
        run_python(SEND, *arguments, database=sqlite_only.settings, settings=MANAGER)

    with StreamClient(url, headers=anna) as skipping, StreamClient(url, headers=bert) as other:
        skipping.wait_open()
        other.wait_open()
        send(*range(1, 7))
        other.wait_for(lambda c: c.has(unique_channel, 6))
        skipping.wait_for(lambda c: c.last_event_id == f"{unique_channel}:6")
        skipping.cut()
        send(7, 8, 9, 10)
        for client in (skipping, other):
            client.wait_for(lambda c: c.has(unique_channel, 10))
        assert other.numbers(unique_channel) == list(range(1, 11))
        assert skipping.numbers(unique_channel) == [1, 2, 4, 5, 7, 8, 10]
    with StreamClient(url, headers=anna, last_event_id=f"{unique_channel}:0") as replayed:
        replayed.wait_for(lambda c: c.has(unique_channel, 10))
        assert replayed.numbers(unique_channel) == [1, 2, 4, 5, 7, 8, 10]
