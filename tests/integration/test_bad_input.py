"""Whatever a client sends gets a defined answer, never a traceback, and nothing is lost."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client

from django_eventstream import send_events
from tests.services.databases import Database
from tests.services.postgres import Postgres
from tests.services.servers import AppServer
from tests.sse_client import StreamClient, numbered
from tests.sse_parser import EventStreamParser

MANAGER = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager"}


LANES = ["uvicorn", "uvicorn+wrapper"]


@pytest.fixture(scope="module", params=LANES)
def server(request, database_of, django_db_blocker) -> Iterator[AppServer]:
    """One of each lane for all tests here: each has channels of its own."""
    with django_db_blocker.unblock():
        database = database_of("sqlite")
    with AppServer(request.param, database=database.settings, settings=MANAGER) as running:
        yield running


def error_of(server: AppServer, query: str, **headers: str) -> dict[str, object]:
    """The one event of a stream that ends at once with `stream-error`."""
    with StreamClient(f"{server.url}/events/{query}", headers=headers, reconnect=False) as client:
        client.wait_for(lambda c: c.connections and c.connections[-1].end)
        assert client.connections[-1].status == 200
        assert client.connections[-1].end == "complete"
        [arrival] = client.arrivals
    assert (arrival.type, arrival.last_event_id) == ("stream-error", "error")
    return arrival.json()


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("{}:99", "ahead"),
        ("{}:" + "9" * 29, "ahead"),
        ("{}:" + "9" * 5_000, "unreadable"),
        ("{}:abc", "unreadable"),
        ("{}:-1", "unreadable"),
        ("{}:\u0663", "unreadable"),
        ("{}", "unreadable"),
        ("42", "unreadable"),
        ("0b8e7c3e-5b1c-4d0e-9f3c-2f6f1f0a9f11", "unreadable"),
        ("%ff%fe:3", "unreadable"),
        ("{}:1,:99", "epoch"),
        ("::::,,,%:%:%", "unreadable"),
        ("a" * 7_000, "unreadable"),
    ],
)
def test_a_cursor_that_cannot_be_resumed_starts_over_and_is_told(
    server, sqlite_only, unique_channel, cursor, reason
):
    with sqlite_only.as_default():
        send_events(numbered(unique_channel, [1, 2]))
    text = cursor.format(unique_channel)
    url = f"{server.url}/events/?channel={unique_channel}&lastEventId={quote(text)}"
    if len(text) > 3_000:
        url, text = f"{server.url}/events/?channel={unique_channel}", text
        client = StreamClient(url, last_event_id=text)
    else:
        client = StreamClient(url)
    with client:
        client.wait_for(lambda c: c.of_type("stream-reset"))
        [reset] = client.of_type("stream-reset")
        assert reset.json() == {"channels": [unique_channel], "reasons": {unique_channel: reason}}
        assert reset.last_event_id == f"{unique_channel}:2"
        server.send(*numbered(unique_channel, [3]))
        client.wait_for(lambda c: c.has(unique_channel, 3))
        assert client.numbers(unique_channel) == [3]


def test_a_cursor_of_other_channels_starts_now(server, sqlite_only, unique_channel):
    with sqlite_only.as_default():
        send_events(numbered(unique_channel, [1]))
    url = f"{server.url}/events/?channel={unique_channel}"
    with StreamClient(url, last_event_id="elsewhere:3") as client:
        client.wait_open()
        assert client.arrivals[0].last_event_id == f"{unique_channel}:1"
        assert client.of_type("stream-reset") == []


def test_who_comes_back_after_a_stream_error_is_turned_away_for_good(server):
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.request("/events/?channel=a&lastEventId=error")
    assert caught.value.code == 400
    assert caught.value.read() == b"Invalid request: Can't resume session after stream-error.\n"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "No channels specified"),
        ("?channel=", "Invalid channel: channel must not be empty"),
        ("?" + "&".join(f"channel=c{n}" for n in range(11)), "Channel limit exceeded"),
        (
            "?channel=" + "x" * 256,
            "Invalid channel: channel has 256 characters; at most 255 are possible",
        ),
        ("?channel=%00", "Invalid channel: channel contains a NUL character"),
    ],
)
def test_channels_that_cannot_be_are_a_bad_request(server, query, text):
    assert error_of(server, query) == {"condition": "bad-request", "text": text}


@pytest.mark.parametrize("channel", ["__eventstream__", "private-anna"])
def test_forbidden_channels_are_named_and_nothing_else_is_said(server, channel):
    assert error_of(server, f"?channel=a&channel={channel}") == {
        "condition": "forbidden",
        "text": f"Permission denied to channels: {channel}",
        "channels": [channel],
    }


def test_who_is_logged_in_reads_what_is_theirs_and_not_what_is_not(server):
    headers = server.log_in("anna")
    url = f"{server.url}/events/?channel=private-anna"
    with StreamClient(url, headers=headers) as client:
        client.wait_open()
    assert error_of(server, "?channel=private-bert", **headers)["condition"] == "forbidden"


@pytest.mark.parametrize(
    "channel",
    ["a b", "ü/ö?&=#", "a,b:c", "%I%%", "\r\nid: 7", "💥" * 100, "'; DROP TABLE x; --", " ", "."],
)
def test_any_text_is_a_channel(server, channel):
    with StreamClient(f"{server.url}/events/?channel={quote(channel, safe='')}") as client:
        client.wait_open()
        server.send(*numbered(channel, [1]))
        client.wait_for(lambda c: c.has(channel, 1))
        assert client.last_event_id == f"{quote(channel)}:1"


def test_a_channel_manager_that_fails_is_no_news_to_the_client(server):
    error = error_of(server, "?channel=broken")
    assert error == {"condition": "internal-error", "text": "Internal error"}
    assert "a secret of the server" in server.log_text()


@pytest.mark.parametrize(
    ("headers", "is_event_source"),
    [
        ({"Accept": "text/event-stream"}, True),
        ({"Accept": "text/html, text/event-stream;q=0.9"}, True),
        ({"Accept": "*/*", "Last-Event-ID": "a:1"}, True),
        ({}, False),
        ({"Accept": "*/*"}, False),
        ({"Accept": "application/json"}, False),
    ],
)
@pytest.mark.parametrize("method", ["get", "head"])
def test_only_those_that_ask_like_an_event_source_get_an_error_with_status_200(
    client, settings, headers, is_event_source, method
):
    """An access log had 200 for whoever was refused."""
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = MANAGER["EVENTSTREAM_CHANNELMANAGER_CLASS"]
    for query, status, condition in [
        ("", 400, "bad-request"),
        ("?channel=private-anna", 403, "forbidden"),
        ("?channel=broken", 500, "internal-error"),
    ]:
        answer = getattr(client, method)(f"/events/{query}", headers=headers)
        assert answer.status_code == (200 if is_event_source else status)
        assert answer["Content-Type"] == "text/event-stream"
        assert method == "head" or f'"{condition}"' in answer.content.decode()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/events/?channel=a", "GET, HEAD, OPTIONS"),
        ("/viewset/a/", "GET, HEAD, OPTIONS"),
        ("/events/_next/", "GET, HEAD"),
    ],
)
def test_other_methods_are_refused(db, settings, method, path, allowed):
    """They were answered with 403, of a token against CSRF that nothing here needs."""
    if path.startswith("/viewset/"):
        settings.ROOT_URLCONF = "tests.hand_made_urls"
    client = Client(enforce_csrf_checks=True)
    client.force_login(get_user_model().objects.create(username="anna"))
    answer = client.generic(method, path)
    assert (answer.status_code, answer["Allow"]) == (405, allowed)


def test_head_and_options_open_no_stream(client):
    head = client.head("/events/?channel=a")
    assert (head.status_code, head.content) == (200, b"")
    assert head["Content-Type"] == "text/event-stream"
    assert client.options("/events/?channel=a").status_code == 200


def test_wsgi_without_a_proxy_says_at_once_what_is_wrong(client):
    answer = client.get("/events/?channel=a")
    assert answer.status_code == 501
    assert "ASGI" in answer.content.decode()
    assert "GRIP_URL" in answer.content.decode()


def test_a_page_of_another_site_may_come_back_with_its_cursor(client, settings):
    settings.EVENTSTREAM_ALLOW_ORIGINS = ["https://one.example", "https://two.example"]
    settings.EVENTSTREAM_ALLOW_CREDENTIALS = True
    settings.EVENTSTREAM_ALLOW_HEADERS = "X-Own"
    answer = client.options("/events/", headers={"origin": "https://two.example"})
    assert answer["Access-Control-Allow-Origin"] == "https://two.example"
    assert answer["Access-Control-Allow-Credentials"] == "true"
    assert answer["Access-Control-Allow-Headers"] == "Cache-Control, Last-Event-ID, X-Own"
    assert "Origin" in answer["Vary"]
    other = client.options("/events/", headers={"origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other


@pytest.mark.parametrize("kind", LANES)
def test_a_database_that_is_gone_sends_newcomers_back_with_their_cursor_and_loses_nothing(
    app_server, unique_channels, django_db_blocker, kind
):
    known, other = unique_channels(2)
    with Postgres() as server, django_db_blocker.unblock():
        name = "eventstream_gone"
        server.create_database(name)
        database = Database(f"gone from {kind}", server.django_settings(name), server)
        database.migrate()
        connections[database.alias].close()
        app = app_server(database, kind)
        url = f"{app.url}/events/?channel="
        app.send(*numbered(other, [1]))
        with (
            StreamClient(url + known, retry=0.2) as staying,
            StreamClient(url + known, last_event_id=f"{known}:0", retry=0.2) as from_memory,
            StreamClient(url + other, last_event_id=f"{other}:0", retry=0.2) as coming,
        ):
            staying.wait_open()
            app.send(*numbered(known, [1]))
            staying.wait_for(lambda c: c.has(known, 1))
            from_memory.wait_for(lambda c: c.has(known, 1))
            coming.wait_for(lambda c: c.has(other, 1))
            server.kill()
            coming.cut()
            from_memory.cut()
            from_memory.wait_for(lambda c: len(c.connections) > 1 and c.is_open)
            coming.wait_for(lambda c: c.retry)
            assert coming.connections[-1].status == 200
            assert coming.last_event_id == f"{other}:1"
            server.start()
            app.send(*numbered(known, [2, 3]), *numbered(other, [2]))
            for client in (staying, from_memory):
                client.wait_for(lambda c: c.has(known, 3))
                assert client.numbers(known) == [1, 2, 3]
            coming.wait_for(lambda c: c.has(other, 2))
            assert coming.numbers(other) == [1, 2]
            assert len(staying.connections) == 1


def test_a_database_without_tables_is_an_answer_too(app_server, tmp_path):
    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "empty.sqlite3")}
    app = app_server(Database("empty", settings), "uvicorn+wrapper")
    with StreamClient(f"{app.url}/events/?channel=a", reconnect=False) as client:
        client.wait_for(lambda c: c.retry)
        assert client.connections[0].status == 200
    assert "migrate" in app.log_text()


def test_what_a_stream_says_of_an_error_is_json_whatever_the_channel(server):
    name = '"}\n\nevent: x\ndata: '
    manager_says_no = quote(f"private-{name}", safe="")
    error = error_of(server, f"?channel={manager_says_no}")
    assert error["channels"] == [f"private-{name}"]
    parser = EventStreamParser()
    assert [m.type for m in parser.feed(json.dumps(error).encode())] == []
