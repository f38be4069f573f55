"""A site of one process, whose log is in its memory: nothing but the end of it loses events."""

from __future__ import annotations

import pytest

from tests.sse_client import StreamClient, assert_sequence, numbered

SETTINGS = {"EVENTSTREAM_STORAGE_CLASS": "django_eventstream.storage.MemoryStorage"}


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn+wrapper"])
def test_clients_resume_while_the_process_lives_and_start_over_with_the_next(
    sqlite_only, app_server, unique_channel, kind
):
    server = app_server(sqlite_only, kind, settings=SETTINGS)
    with StreamClient(f"{server.url}/events/?channel={unique_channel}") as client:
        client.wait_open()
        server.send(*numbered(unique_channel, range(1, 11)))
        client.wait_for(lambda client: client.has(unique_channel, 10))
        client.pause()
        client.cut()
        server.send(*numbered(unique_channel, range(11, 21)))
        client.resume()
        client.wait_for(lambda client: client.has(unique_channel, 20))
        assert_sequence(client, unique_channel, range(1, 21))
        server.kill()
        server.start()
        client.wait_for(lambda client: client.of_type("stream-reset"))
        [reset] = client.of_type("stream-reset")
        assert reset.json()["reasons"] == {unique_channel: "epoch"}
