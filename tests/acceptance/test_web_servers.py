"""The web servers of the guide, each with the guide's own configuration, in front of a project.

They compress all that they can, and clients take what they compress. Apache compresses what the
guide says: it sends on compressed events at once, and these clients do not decode them.
"""

from __future__ import annotations

import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.http2 import StreamsOfOneConnection
from tests.services.certificate import trusting
from tests.services.deadline import wait_until
from tests.services.ports import free_port
from tests.services.servers import AppServer
from tests.services.web_servers import (
    Apache,
    Caddy,
    CaddyBeforePushpin,
    CompressingVarnish,
    HAProxy,
    Nginx,
)
from tests.sse_client import StreamClient, assert_sequence, numbered
from tests.transcript import Transcript

SERVERS = [Nginx, Caddy, HAProxy, Apache, CompressingVarnish]
HEADERS = {"Accept-Encoding": "gzip, deflate, br, zstd"}
PATIENCE = 30


@pytest.fixture(scope="module")
def app(database_of, django_db_blocker):
    with django_db_blocker.unblock():
        database = database_of("sqlite")
    settings = {"EVENTSTREAM_KEEP_ALIVE_SECONDS": 1}
    with AppServer("uvicorn+wrapper", database=database.settings, settings=settings) as server:
        yield server


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: server.__name__)
def server(request, app):
    with request.param(app.port) as running:
        yield running


@pytest.fixture
def listen(server):
    """Opens a stream of the channel by each version of HTTP that the web server speaks."""

    @contextmanager
    def listening(channel: str) -> Iterator[Listeners]:
        path = f"/events/?channel={channel}"
        with ExitStack() as stack:
            old = stack.enter_context(StreamClient(server.url + path, headers=HEADERS))
            listeners = Listeners({old: old})
            if server.scheme == "https":
                new = stack.enter_context(
                    StreamsOfOneConnection(server.url, [path], headers=HEADERS)
                )
                listeners[new] = new.transcripts[0]
            listeners.wait_for(lambda transcript: transcript.is_open)
            yield listeners

    return listening


class Listeners(dict):
    """Client → what it was sent."""

    def wait_for(self, wanted: int | Callable[[Transcript], object]) -> None:
        for client in self:
            client.wait_for(wanted, PATIENCE)

    def cut(self) -> None:
        for client in self:
            client.cut()


def test_events_and_keep_alives_arrive_at_once_and_a_client_that_leaves_is_noticed(
    app, listen, unique_channel
):
    """Those that compress waited for more: of 306 events behind Caddy, none had arrived."""
    with listen(unique_channel) as listeners:
        for number in range(1, 6):
            app.send(*numbered(unique_channel, [number]))
            listeners.wait_for(number)
        listeners.wait_for(lambda transcript: transcript.of_type("keep-alive"))
        for transcript in listeners.values():
            assert_sequence(transcript, unique_channel, range(1, 6))
        assert app.stats()["streams"] >= len(listeners)
    wait_until(lambda: app.stats()["streams"] == 0, PATIENCE)


def test_a_stream_that_is_cut_goes_on_from_its_last_event_id(app, listen, unique_channel):
    with listen(unique_channel) as listeners:
        for number in range(1, 4):
            app.send(*numbered(unique_channel, [number]))
            listeners.wait_for(number)
            listeners.cut()
        app.send(*numbered(unique_channel, [4]))
        listeners.wait_for(4)
        for transcript in listeners.values():
            assert transcript.connections[-1].sent_last_event_id
            assert_sequence(transcript, unique_channel, range(1, 5))


def test_events_arrive_at_once_behind_caddy_and_pushpin(
    app_server, running, pushpin, sqlite_only, unique_channel
):
    """Pushpin takes away the word that keeps Caddy from compressing."""
    port = free_port()
    proxy = pushpin(port)
    app = app_server(sqlite_only, "gunicorn", port=port, settings={"GRIP_URL": proxy.grip_url})
    url = running(CaddyBeforePushpin(port, proxy.port)).url
    with StreamClient(f"{url}/events/?channel={unique_channel}", headers=HEADERS) as client:
        client.wait_open(PATIENCE)
        for number in range(1, 4):
            app.send(*numbered(unique_channel, [number]))
            client.wait_for(number, PATIENCE)
        assert_sequence(client, unique_channel, range(1, 4))


def test_a_form_can_be_posted(server):
    """Django refuses one whose `Origin` is another host or scheme than that of the request."""
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=trusting()), urllib.request.HTTPCookieProcessor()
    )
    url = f"{server.url}/admin/login/"
    page = opener.open(url, timeout=PATIENCE).read().decode()
    [token] = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    form = {"csrfmiddlewaretoken": token, "username": "nobody", "password": "none"}
    headers = {"Origin": server.url, "Referer": url}
    request = urllib.request.Request(url, urllib.parse.urlencode(form).encode(), headers)
    assert (
        "Please enter the correct username"
        in opener.open(request, timeout=PATIENCE).read().decode()
    )
