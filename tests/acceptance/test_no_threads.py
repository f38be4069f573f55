"""A system that has no more threads, for a while."""

from __future__ import annotations

import pytest

from tests.sse_client import StreamClient, numbered


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn+wrapper"])
def test_events_arrive_once_there_are_threads_again(
    app_server, postgres_only, unique_channel, kind
):
    """The tasks that follow the log and start streams died of it: nobody got a byte any more."""
    server = app_server(postgres_only, kind)
    server.request("/refuse-threads/4/")
    with StreamClient(f"{server.url}/events/?channel={unique_channel}") as client:
        client.wait_open()
        server.send(*numbered(unique_channel, [1, 2]))
        client.wait_for(lambda c: c.has(unique_channel, 2))
        assert client.numbers(unique_channel) == [1, 2]
    assert server.stats()["refused_threads"] == 4
