"""`EventStreamApplication` around Django, in a real server. See `integration/test_wrapper.py`."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest
from django.conf import settings

from tests.services.deadline import wait_until
from tests.sse_client import StreamClient, assert_sequence, numbered

SERVERS = ("uvicorn+wrapper", "daphne+wrapper", "hypercorn+wrapper", "granian+wrapper")

UNFINISHED = 20


def settings_with(name: str) -> dict[str, list[str]]:
    """Settings of a server whose middleware ends with this one of `tests.middleware`."""
    return {"MIDDLEWARE": [*settings.MIDDLEWARE, f"tests.middleware.{name}"]}


def test_all_middleware_has_seen_the_answer(app_server, sqlite_only, unique_channel):
    server = app_server(sqlite_only, "uvicorn+wrapper", settings=settings_with("add_header"))
    with StreamClient(f"{server.url}/events/?channel={unique_channel}") as client:
        client.wait_open()
        assert client.connections[0].headers["x-seen"] == "yes"
        assert "content-length" not in client.connections[0].headers
        server.send(*numbered(unique_channel, [1]))
        client.wait_for(lambda c: c.has(unique_channel, 1))


@pytest.mark.parametrize("kind", SERVERS)
def test_an_answer_that_middleware_made_its_own_is_not_held(
    app_server, sqlite_only, unique_channel, kind
):
    server = app_server(sqlite_only, kind, settings=settings_with("replace_status"))
    with StreamClient(f"{server.url}/events/?channel={unique_channel}", reconnect=False) as client:
        client.wait_for(lambda c: c.connections and c.connections[0].end)
        assert client.connections[0].status == 418
        assert client.connections[0].body == b""
    assert "The wrapper does not hold a stream: it has status 418" in server.log_text()


def test_refusals_and_other_views_are_what_django_answers(app_server, sqlite_only):
    server = app_server(sqlite_only, "uvicorn+wrapper")
    assert server.stats()["pid"] == server.stats()["pid"]
    with StreamClient(f"{server.url}/events/", reconnect=False) as client:
        client.wait_for(lambda c: c.of_type("stream-error"))
        assert client.arrivals[0].json()["text"] == "No channels specified"


@pytest.mark.parametrize("kind", SERVERS)
def test_unfinished_requests_hold_up_no_stream(app_server, sqlite_only, unique_channel, kind):
    """A `Content-Length` and no body, as often as there are places, and no stream was opened."""
    server = app_server(sqlite_only, kind, settings={"EVENTSTREAM_REQUEST_LIMIT": 2})
    path = f"/events/?channel={unique_channel}"
    lines = [f"GET {path} HTTP/1.1", "Host: x", "Accept: text/event-stream", "Content-Length: 5"]
    head = "\r\n".join([*lines, "", ""])
    with ExitStack() as stack:
        unfinished = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            for _ in range(UNFINISHED)
        ]
        for connection in unfinished:
            connection.sendall(head.encode())
        with StreamClient(server.url + path) as client:
            client.wait_open()
            server.send(*numbered(unique_channel, [1]))
            client.wait_for(lambda c: c.has(unique_channel, 1))
        if server.kind != "daphne":  # it asks nobody before a request is complete
            answers = [connection.recv(4096) for connection in unfinished]
            assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers), answers


def test_streams_of_a_mount_under_fastapi_end_in_silence(app_server, sqlite_only, unique_channel):
    """Each client that left was an exception in the log, and some were cut."""
    server = app_server(sqlite_only, "uvicorn+within-fastapi")
    with StreamClient(f"{server.url}/events/?channel={unique_channel}") as client:
        for number in range(1, 11):
            client.wait_open()
            server.send(*numbered(unique_channel, [number]))
            client.wait_for(lambda c, n=number: c.has(unique_channel, n))
            if number == 5:
                assert server.stats()["couriers"] == 1
                client.cut()
        assert_sequence(client, unique_channel, range(1, 11))
    wait_until(lambda: server.stats()["streams"] == 0, 30, server.stats)
    assert server.stats()["couriers"] == 0
    assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("lane", ["around-channels", "within-channels"])
def test_under_a_router_of_channels_streams_are_held(app_server, sqlite_only, unique_channel, lane):
    server = app_server(sqlite_only, f"daphne+{lane}")
    with StreamClient(f"{server.url}/events/?channel={unique_channel}") as client:
        client.wait_open()
        for number in range(1, 21):
            server.send(*numbered(unique_channel, [number]))
            if number == 10:
                client.cut()
        client.wait_for(lambda c: c.has(unique_channel, 20))
        assert_sequence(client, unique_channel, range(1, 21))
