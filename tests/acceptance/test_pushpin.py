"""Streams through a real Pushpin: nothing missing, nothing twice, nothing out of order."""

from __future__ import annotations

import pytest

from tests.services.ports import free_port
from tests.sse_client import StreamClient, assert_sequence, numbered


@pytest.fixture
def behind_pushpin(app_server, pushpin, sqlite_only):
    """Starts an application behind a proxy: `behind_pushpin("gunicorn") -> (proxy, server)`."""

    def start(kind="gunicorn", *, handler=None, **settings):
        port = free_port()
        proxy = pushpin(port, handler={"message_wait": 300, **(handler or {})})
        settings = {"GRIP_URL": proxy.grip_url, **settings}
        return proxy, app_server(sqlite_only, kind, port=port, settings=settings)

    return start


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_events_reach_a_client_through_the_proxy(behind_pushpin, unique_channel, kind):
    proxy, server = behind_pushpin(kind)
    with StreamClient(f"{proxy.url}/events/?channel={unique_channel}") as client:
        client.wait_open()
        for n in range(1, 21):
            server.send(*numbered(unique_channel, [n]))
        client.wait_for(20)
        assert_sequence(client, unique_channel, range(1, 21))
        assert len(client.connections) == 1
