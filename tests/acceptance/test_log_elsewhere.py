"""A log in a database of its own, and permissions in that of the project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from django.contrib.auth.models import Group
from django.db import transaction
from django.test.utils import override_settings

from django_eventstream import channel_permission_changed, send_event
from tests.services.databases import Database
from tests.services.servers import AppServer
from tests.sse_client import StreamClient

SETTINGS = {
    "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.GroupChannelManager",
    "DATABASE_ROUTERS": ["tests.managers.LogElsewhere"],
}


@pytest.fixture
def server(sqlite_only: Database, postgres_only: Database, app_server) -> Iterator[AppServer]:
    databases = {"default": sqlite_only.settings, "postgres": postgres_only.settings}
    with sqlite_only.as_default(), override_settings(**SETTINGS):
        yield app_server(sqlite_only, "uvicorn", settings={**SETTINGS, "DATABASES": databases})


def test_a_stream_opened_before_the_commit_ends_by_it(server, unique_channel):
    """It was told before the commit, by which it read on for ever; and so did those after it."""
    Group.objects.create(name=unique_channel)
    with ExitStack() as stack:
        url = f"{server.url}/events/?channel={unique_channel}"
        first = stack.enter_context(StreamClient(url)).wait_open()
        with transaction.atomic():
            Group.objects.filter(name=unique_channel).delete()
            channel_permission_changed(None, unique_channel)
            # What is told too early would be known to every hub by now.
            second = stack.enter_context(StreamClient(url)).wait_open()
            send_event("other", "message", "not stored before the commit either")
        for client in (first, second):
            client.wait_for(lambda client: client.of_type("stream-error"))


def test_a_rollback_ends_no_stream(server, unique_channel):
    """Streams of a user who may read were ended."""
    Group.objects.create(name=unique_channel)
    url = f"{server.url}/events/?channel={unique_channel}"
    with StreamClient(url) as client:
        client.wait_open()
        with suppress(ZeroDivisionError), transaction.atomic():
            Group.objects.filter(name=unique_channel).delete()
            channel_permission_changed(None, unique_channel)
            raise ZeroDivisionError
        send_event(unique_channel, "message", {"channel": unique_channel, "n": 1})
        client.wait_for(lambda client: client.has(unique_channel, 1))
        assert not client.of_type("stream-error")
