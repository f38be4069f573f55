"""What users of 5.3.4 suffered from, in their words, by issue number: with a real server."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest

from tests.acceptance.test_redis import wait_until_heard
from tests.acceptance.test_several_processes import NO_POLL
from tests.services.deadline import HEALTHY
from tests.services.python import run_python
from tests.services.servers import AppServer
from tests.sse_client import StreamClient, assert_sequence, numbered

ORIGINS = ["https://one.example", "https://two.example"]
SETTINGS = {
    "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager",
    "EVENTSTREAM_CHANNEL_LIMIT": 12,
    "EVENTSTREAM_ALLOW_ORIGINS": ORIGINS,
    "EVENTSTREAM_ALLOW_CREDENTIALS": True,
}
SEND = """
import sys
from django_eventstream import send_event
for number in range(1, int(sys.argv[2]) + 1):
    send_event(sys.argv[1], "message", {"channel": sys.argv[1], "n": number})
"""
SKIP = """
import sys
from django.contrib.auth import get_user_model
from django_eventstream import send_event
sender = get_user_model().objects.get(username="anna")
data = {"channel": sys.argv[1], "n": 1}
send_event(sys.argv[1], "message", data, skip_user_ids=[sender.pk])
"""


@pytest.fixture(scope="module")
def site_database(database_of, django_db_blocker):
    with django_db_blocker.unblock():
        database = database_of("sqlite")
        database.empty()
    return database


@pytest.fixture(scope="module")
def server(site_database) -> Iterator[AppServer]:
    """One server for all complaints. Their channels are their own, so they do not meet."""
    middleware = ["django.middleware.gzip.GZipMiddleware"]
    middleware += [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    settings = {**SETTINGS, "MIDDLEWARE": middleware}
    with AppServer("uvicorn", database=site_database.settings, settings=settings) as running:
        yield running


@pytest.fixture
def open_client(server):
    """`open_client(channel, …)`: a client of these channels, to be entered."""

    def make(*channels: str, **options) -> StreamClient:
        query = "&".join(f"channel={channel}" for channel in channels)
        return StreamClient(f"{server.url}/events/?{query}", **options)

    return make


def headers_of(server, path: str, method: str = "GET", **headers: str):
    request = urllib.request.Request(server.url + path, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=HEALTHY) as answer:
        return answer.headers


@pytest.mark.parametrize("count", [1, 5])
def test_issues_21_26_32_34_41_47_49_55_68_90_98_120_125_160_what_a_shell_sends_arrives(
    open_client, site_database, unique_channel, count
):
    """#49: the script ends right after it. #160: of five sent at once, two came."""
    with open_client(unique_channel) as client:
        client.wait_open()
        run_python(SEND, unique_channel, str(count), database=site_database.settings)
        client.wait_for(lambda it: it.has(unique_channel, count))
        assert_sequence(client, unique_channel, range(1, count + 1))


def test_issues_17_89_151_a_hundred_streams_leave_the_site_and_its_database_free(
    server, open_client, unique_channel
):
    server.send(*numbered(unique_channel, [1]))
    before = server.stats()
    clients = [open_client(unique_channel).start() for _ in range(100)]
    try:
        for client in clients:
            client.wait_open()
        after = server.stats()
        assert after["streams"] >= before["streams"] + 100
        assert after["threads"] < before["threads"] + 20
        assert after["database_files"] < before["database_files"] + 20
        server.send(*numbered(unique_channel, [2]))
        for client in clients:
            client.wait_for(lambda it: it.has(unique_channel, 2))
    finally:
        for client in clients:
            client.close()


def test_issues_41_57_67_nothing_waits_for_the_end_though_the_site_compresses(
    server, open_client, unique_channel
):
    with open_client(unique_channel, headers={"Accept-Encoding": "gzip"}) as client:
        client.wait_open()
        [connection] = client.connections
        assert connection.headers["content-encoding"] == "identity"
        assert connection.headers["x-accel-buffering"] == "no"
        assert "no-transform" in connection.headers["cache-control"]
        server.send(*numbered(unique_channel, [1]))
        client.wait_for(lambda it: it.has(unique_channel, 1))
        assert max(map(len, client.comments)) >= 2_000, "some proxies hold back the first bytes"


def test_issues_15_54_158_a_new_tab_gets_what_was_sent_before_it_was_opened(
    server, open_client, unique_channel
):
    server.send(*numbered(unique_channel, [1, 2, 3]))
    with open_client(unique_channel, last_event_id=f"{unique_channel}:0") as client:
        client.wait_for(lambda it: it.has(unique_channel, 3))
        assert_sequence(client, unique_channel, [1, 2, 3])


def test_issues_16_101_a_stream_has_as_many_channels_as_the_setting_says(
    server, open_client, unique_channels
):
    channels = unique_channels(12)
    with open_client(*channels) as client:
        client.wait_open()
        server.send(*(event for channel in channels for event in numbered(channel, [1])))
        client.wait_for(12)
    with open_client(*channels, "one-more", reconnect=False) as client:
        client.wait_for(lambda it: it.of_type("stream-error"))
        assert client.of_type("stream-error")[0].json()["condition"] == "bad-request"


@pytest.mark.parametrize("origin", ORIGINS)
def test_issues_25_45_91_133_a_page_of_each_of_several_origins_may_read_with_cookies(
    server, unique_channel, origin
):
    path = f"/events/?channel={unique_channel}"
    asked = {"Access-Control-Request-Method": "GET"}
    for headers in (
        headers_of(server, path, Origin=origin),
        headers_of(server, path, "OPTIONS", Origin=origin, **asked),
    ):
        assert headers["Access-Control-Allow-Origin"] == origin
        assert headers["Access-Control-Allow-Credentials"] == "true"
        assert "last-event-id" in headers["Access-Control-Allow-Headers"].lower()
        assert "Origin" in headers["Vary"]


def test_issues_18_40_60_74_130_the_stream_knows_who_logged_in(server, open_client):
    with open_client("private-anna", headers=server.log_in("anna")) as hers:
        hers.wait_open()
    with open_client("private-anna", reconnect=False) as nobodys:
        nobodys.wait_for(lambda it: it.of_type("stream-error"))
        assert nobodys.of_type("stream-error")[0].json()["condition"] == "forbidden"


def test_issue_28_the_sender_is_skipped_without_a_proxy(
    server, open_client, site_database, unique_channel
):
    anna, bert = server.log_in("anna"), server.log_in("bert")
    with (
        open_client(unique_channel, headers=anna) as hers,
        open_client(unique_channel, headers=bert) as his,
    ):
        hers.wait_open()
        his.wait_open()
        run_python(SKIP, unique_channel, database=site_database.settings)
        server.send(*numbered(unique_channel, [2]))
        for client in (hers, his):
            client.wait_for(lambda it: it.has(unique_channel, 2))
        assert his.numbers(unique_channel) == [1, 2]
        assert hers.numbers(unique_channel) == [2]


@pytest.mark.parametrize("position", ["0", "-1", "99999999999999999999999999", "x", ""])
def test_pull_requests_8_and_83_no_position_makes_the_server_go_round(
    server, open_client, unique_channel, position
):
    server.send(*numbered(unique_channel, [1]))
    with open_client(unique_channel, last_event_id=f"{unique_channel}:{position}") as client:
        client.wait_open()
        server.send(*numbered(unique_channel, [2]))
        client.wait_for(lambda it: it.has(unique_channel, 2))
        assert len(client.connections) == 1
        assert client.numbers(unique_channel) == ([1, 2] if position == "0" else [2])


def test_issue_52_a_reconnect_goes_on_where_the_connection_was_cut(
    server, open_client, unique_channel
):
    """Even if nothing had come yet: in 5.3.4 the first frame had no id."""
    with open_client(unique_channel, reconnect=False) as first:
        first.wait_open()
    server.send(*numbered(unique_channel, [1]))
    with open_client(unique_channel, last_event_id=first.last_event_id) as client:
        client.wait_for(lambda it: it.has(unique_channel, 1))
        assert_sequence(client, unique_channel, [1])


def test_issues_120_155_after_a_restart_of_redis_events_go_on_between_processes(
    app_server, site_database, redis_server, unique_channel
):
    """Nobody looks into the log here for ten minutes: what comes was told by Redis."""
    broker = {"EVENTSTREAM_REDIS": {"host": "127.0.0.1", "port": redis_server.port}}
    settings = {**SETTINGS, **broker, **NO_POLL}
    here = app_server(site_database, settings=settings)
    other = app_server(site_database, "uvicorn+wrapper", settings=settings)
    with StreamClient(f"{here.url}/events/?channel={unique_channel}") as client:
        client.wait_open()
        wait_until_heard(redis_server, [here])
        redis_server.kill()
        other.send(*numbered(unique_channel, [1]))
        redis_server.start()
        wait_until_heard(redis_server, [here])
        other.send(*numbered(unique_channel, [2]))
        client.wait_for(lambda it: it.has(unique_channel, 2))
        assert_sequence(client, unique_channel, [1, 2])
        assert len(client.connections) == 1
