"""`EventStreamApplication` around Django: what it holds, and what it lets pass."""

from __future__ import annotations

import pytest

from tests.sse_client import StreamClient, numbered

MIDDLEWARE = "tests.middleware"


@pytest.fixture
def settings_with(settings):
    """Settings of a server whose middleware ends with this one."""

    def make(name: str) -> dict[str, list[str]]:
        return {"MIDDLEWARE": [*settings.MIDDLEWARE, f"{MIDDLEWARE}.{name}"]}

    return make


def test_all_middleware_has_seen_the_answer(app_server, sqlite_only, unique_channel, settings_with):
    server = app_server(sqlite_only, "uvicorn+wrapper", settings=settings_with("add_header"))
    with StreamClient(f"{server.url}/events/?channel={unique_channel}") as client:
        client.wait_open()
        assert client.connections[0].headers["x-seen"] == "yes"
        assert "content-length" not in client.connections[0].headers
        server.send(*numbered(unique_channel, [1]))
        client.wait_for(lambda c: c.has(unique_channel, 1))


@pytest.mark.parametrize(
    ("middleware", "status", "body"),
    [("replace_body", 200, b"something else"), ("replace_status", 418, b"")],
)
def test_an_answer_that_middleware_made_its_own_is_not_held(
    app_server, sqlite_only, unique_channel, settings_with, middleware, status, body
):
    server = app_server(sqlite_only, "uvicorn+wrapper", settings=settings_with(middleware))
    with StreamClient(f"{server.url}/events/?channel={unique_channel}", reconnect=False) as client:
        client.wait_for(lambda c: c.connections and c.connections[0].end)
        assert client.connections[0].status == status
        assert client.connections[0].headers["content-length"] == str(len(body))
        assert client.arrivals == []
    assert "A stream is not held" in server.log_text()


def test_refusals_and_other_views_are_what_django_answers(app_server, sqlite_only):
    server = app_server(sqlite_only, "uvicorn+wrapper")
    assert server.stats()["pid"] == server.stats()["pid"]
    with StreamClient(f"{server.url}/events/", reconnect=False) as client:
        client.wait_for(lambda c: c.of_type("stream-error"))
        assert client.arrivals[0].json()["text"] == "No channels specified"
