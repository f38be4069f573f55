"""A client that was away for long gets all that it missed: page by page, and in little memory."""

from __future__ import annotations

import pytest

from django_eventstream import send_events
from tests.sse_client import StreamClient, numbered

KINDS = ["uvicorn", "uvicorn+wrapper"]
MANY = 10_000
LARGE = 40
PADDING = "x" * 400_000

# The clock that asks for news is set so slow that only what the replay costs is counted.
NO_CLOCK = {"EVENTSTREAM_POLL_SECONDS": 600, "EVENTSTREAM_POSTGRES_NOTIFY": False}


def follow(server, *channels: str) -> StreamClient:
    query = "&".join(f"channel={channel}" for channel in channels)
    cursor = ",".join(f"{channel}:0" for channel in channels)
    return StreamClient(f"{server.url}/events/?{query}", last_event_id=cursor)


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_events_cost_few_statements(default_database, app_server, kind):
    send_events(numbered("long", range(1, MANY + 1)))
    server = app_server(default_database, kind, settings=NO_CLOCK)
    with follow(server, "long") as client:
        client.wait_for(lambda c: c.has("long", MANY), timeout=60)
    assert client.numbers("long") == list(range(1, MANY + 1))
    statements = server.stats()["log_statements"]
    assert sum(statements.values()) <= 20, statements


@pytest.mark.parametrize("kind", KINDS)
def test_of_large_events_a_page_is_held_and_no_more(default_database, app_server, kind):
    """Five hundred were read at once, however large they were."""
    for number in range(1, LARGE + 1):
        send_events([("large", "message", {"channel": "large", "n": number, "padding": PADDING})])
    server = app_server(default_database, kind, settings=NO_CLOCK)
    with follow(server, "quiet") as first:
        first.wait_open()
        before = server.stats()["most_resident_bytes"]
        with follow(server, "large") as client:
            client.wait_for(lambda c: c.has("large", LARGE), timeout=60)
        assert server.stats()["most_resident_bytes"] - before < 12_000_000
    assert client.numbers("large") == list(range(1, LARGE + 1))
