"""A project with `RedisStorage` swaps the real django-eventstream 5.3.4 for this package."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.acceptance.test_upgrade import predecessor  # noqa: F401 - a fixture
from tests.redis_log import connection_to, redis_log, settings_of
from tests.services.ports import free_port
from tests.services.predecessor import OldServer
from tests.sse_client import StreamClient, assert_sequence, numbered

# The first test may have to install the predecessor.
pytestmark = pytest.mark.timeout(900)


def test_the_settings_the_ids_the_events_and_the_clients_stay(
    predecessor,  # noqa: F811
    sqlite_only,
    app_server,
    running,
    redis_server,
):
    connection = connection_to(redis_server)
    settings = {**settings_of(connection), "EVENTSTREAM_REDIS": connection}
    port = free_port()
    url = f"http://127.0.0.1:{port}/events/?channel="
    channels = ("plain", "user:5")
    old = running(
        OldServer(predecessor, database=sqlite_only.settings, settings=settings, port=port)
    )
    clients = [StreamClient(url + quote(channel)) for channel in channels]
    with clients[0], clients[1]:
        for client in clients:
            client.wait_open()
        for channel in channels:
            old.send(*numbered(channel, range(1, 6)))
        for client, channel in zip(clients, channels, strict=True):
            client.wait_for(lambda client, channel=channel: client.has(channel, 5))
            # What came while it was away is read from what 5.3.4 stored.
            client.pause()
        for channel in channels:
            old.send(*numbered(channel, range(6, 11)))
        for client in clients:
            client.cut()
        old.kill()
        new = app_server(sqlite_only, "uvicorn+wrapper", port=port, settings=settings)
        for client in clients:
            client.resume()
        for channel in channels:
            new.send(*numbered(channel, range(11, 16)))
        for client, channel in zip(clients, channels, strict=True):
            client.wait_for(lambda client, channel=channel: client.has(channel, 15))
            assert not client.of_type("stream-reset")
            assert_sequence(client, channel, range(1, 16))
    assert redis_log(redis_server).get_position(channels).ids == dict.fromkeys(channels, 15)
