"""Clients that do not read: they cost the others nothing, and lose nothing."""

from __future__ import annotations

import pytest

from tests.sse_client import StreamClient, numbered

SMALL = {"EVENTSTREAM_WINDOW_BYTES": 100_000, "EVENTSTREAM_BACKLOG_BYTES": 20_000}
PADDING = "x" * 2_000
EVENTS = 3_000


@pytest.mark.parametrize("kind", ["uvicorn", "granian"])
def test_a_client_that_stops_reading_gets_everything_once_it_reads_again(
    app_server, sqlite_only, unique_channel, kind
):
    server = app_server(sqlite_only, kind, settings=SMALL)
    url = f"{server.url}/events/?channel={unique_channel}"
    with StreamClient(url, receive_buffer=4_096) as slow, StreamClient(url) as quick:
        slow.wait_open()
        quick.wait_open()
        slow.pause()
        before = server.stats()["resident_bytes"]
        for start in range(1, EVENTS, 500):
            events = numbered(unique_channel, range(start, start + 500))
            server.send(*[(c, t, {**data, "padding": PADDING}) for c, t, data in events])
        quick.wait_for(lambda c: c.has(unique_channel, EVENTS), timeout=60)
        # Six megabytes went by; what is kept for the one who sleeps are a window and a backlog.
        assert server.stats()["resident_bytes"] - before < 5_000_000
        slow.resume()
        slow.wait_for(lambda c: c.has(unique_channel, EVENTS), timeout=60)
        for client in (slow, quick):
            assert client.numbers(unique_channel) == list(range(1, EVENTS + 1))
            assert len(client.connections) == 1
