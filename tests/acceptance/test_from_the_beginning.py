"""`lastEventId=news:0` gives what is kept of a channel, in every log, lane and epoch."""

from __future__ import annotations

import pytest

from tests.acceptance.test_pushpin import site  # noqa: F401 - a fixture
from tests.redis_log import connection_to, settings_of
from tests.sse_client import StreamClient, numbered

logs = pytest.mark.parametrize("log", ["InDatabase", "InMemory", "InRedis"])


def settings_for(log: str, request) -> dict[str, object]:
    connection = {}
    if log == "InRedis":
        connection = settings_of(connection_to(request.getfixturevalue("redis_server")))
    return {**connection, "EVENTSTREAM_STORAGE_CLASS": f"tests.last_five.{log}"}


def assert_begins_with_the_oldest(client: StreamClient, server, channel: str) -> None:
    """The client asks for 0 of a channel that has twenty events, of which five are kept."""
    client.wait_for(lambda client: client.has(channel, 20))
    client.pause()
    client.cut()
    server.send(*numbered(channel, [21]))
    client.resume()
    client.wait_for(lambda client: client.has(channel, 21))
    assert client.numbers(channel) == [*range(16, 22)]
    assert not client.of_type("stream-reset")


@logs
@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn+wrapper"])
def test_a_stream_from_zero_begins_at_the_oldest_event_kept(
    request, sqlite_only, app_server, unique_channel, kind, log
):
    """Redis and the log in memory answered every 0 with a reset, and a database did as soon as the
    first event had expired: the client then got none of those that were kept."""
    server = app_server(sqlite_only, kind, settings=settings_for(log, request))
    server.send(*numbered(unique_channel, range(1, 21)))
    url = f"{server.url}/events/?channel={unique_channel}&lastEventId={unique_channel}:0"
    with StreamClient(url) as client:
        assert_begins_with_the_oldest(client, server, unique_channel)


@logs
def test_a_stream_from_zero_behind_a_proxy_begins_at_the_oldest_event_kept(
    request,
    site,  # noqa: F811
    unique_channel,
    log,
):
    here = site(**settings_for(log, request))
    here.server.send(*numbered(unique_channel, range(1, 21)))
    with here.client(unique_channel, since=f"{unique_channel}:0") as client:
        assert_begins_with_the_oldest(client, here.server, unique_channel)
