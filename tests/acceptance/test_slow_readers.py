"""Clients that do not read: they cost the others nothing, and lose nothing."""

from __future__ import annotations

import pytest

from django_eventstream import send_events
from tests.sse_client import StreamClient, numbered

SMALL = {"EVENTSTREAM_WINDOW_BYTES": 100_000, "EVENTSTREAM_BACKLOG_BYTES": 20_000}
PADDING = "x" * 2_000
WARM_UP = 1_000
EVENTS = 6_000


@pytest.mark.parametrize("kind", ["uvicorn", "granian", "uvicorn+wrapper", "granian+wrapper"])
def test_a_client_that_stops_reading_gets_everything_once_it_reads_again(
    app_server, sqlite_only, unique_channel, kind
):
    server = app_server(sqlite_only, kind, settings=SMALL)
    url = f"{server.url}/events/?channel={unique_channel}"

    def send(first: int, last: int) -> None:
        """From another process, so that the server does nothing but hold streams."""
        events = numbered(unique_channel, range(first, last + 1))
        with sqlite_only.as_default():
            for start in range(0, len(events), 500):
                batch = events[start : start + 500]
                send_events([(c, t, {**data, "padding": PADDING}) for c, t, data in batch])

    with StreamClient(url, receive_buffer=4_096) as slow, StreamClient(url) as quick:
        slow.wait_open()
        quick.wait_open()
        slow.pause()
        send(1, WARM_UP)
        quick.wait_for(lambda c: c.has(unique_channel, WARM_UP))
        before = server.stats()["resident_bytes"]
        send(WARM_UP + 1, EVENTS)
        quick.wait_for(lambda c: c.has(unique_channel, EVENTS), timeout=60)
        # Ten megabytes went by; kept for the one who sleeps are a window and a backlog.
        assert server.stats()["resident_bytes"] - before < 5_000_000
        slow.resume()
        slow.wait_for(lambda c: c.has(unique_channel, EVENTS), timeout=60)
        for client in (slow, quick):
            assert client.numbers(unique_channel) == list(range(1, EVENTS + 1))
            assert len(client.connections) == 1
