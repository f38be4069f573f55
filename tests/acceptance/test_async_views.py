"""Streams out of `async def` views of Django, of django-ninja and of adrf, in real servers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from django.conf import settings

from tests.services.deadline import wait_until
from tests.services.ports import free_port
from tests.sse_client import StreamClient, assert_sequence, numbered

if TYPE_CHECKING:
    from tests.services.servers import AppServer

PROJECT = {
    "INSTALLED_APPS": [*settings.INSTALLED_APPS, "rest_framework"],
    "ROOT_URLCONF": "tests.async_urls",
    "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.proxied.MembersOnly",
}
VIEWS = ("routed", "django", "ninja", "adrf")
OWN = "own-alice"


def assert_read_by_alice_alone(server: AppServer, base: str) -> None:
    """Through each view alice gets what she may read, and nobody else does."""
    headers = server.log_in("alice")
    with ExitStack() as stack:
        hers = [
            stack.enter_context(StreamClient(f"{base}/{view}/{OWN}/", headers=headers))
            for view in VIEWS
        ]
        for client in hers:
            client.wait_open()
        server.send(*numbered(OWN, range(1, 4)))
        for client in hers:
            client.wait_for(lambda client: client.has(OWN, 3), 30)
            assert_sequence(client, OWN, range(1, 4))
    for view in VIEWS:
        with StreamClient(f"{base}/{view}/{OWN}/", reconnect=False) as nobody:
            nobody.wait_for(lambda client: client.of_type("stream-error"), 30)
            assert nobody.of_type("stream-error")[0].json()["condition"] == "forbidden"


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn+wrapper"])
def test_each_kind_of_async_view_streams_to_who_is_logged_in(kind, app_server, sqlite_only):
    """A visitor who was logged in got `stream-error`, and never came back."""
    server = app_server(sqlite_only, kind, settings=PROJECT)
    assert_read_by_alice_alone(server, server.url)


def test_each_kind_of_async_view_lets_a_proxy_hold(app_server, pushpin, sqlite_only):
    port = free_port()
    proxy = pushpin(port)
    grip = {**PROJECT, "GRIP_URL": proxy.grip_url}
    server = app_server(sqlite_only, port=port, settings=grip)
    assert_read_by_alice_alone(server, proxy.url)
    assert server.stats()["streams"] == 0


def test_a_stream_out_of_an_async_view_keeps_no_thread_and_no_connection(app_server, sqlite_only):
    server = app_server(sqlite_only, settings=PROJECT)
    headers = server.log_in("alice")
    urls = [f"{server.url}/{view}/{OWN}/" for view in VIEWS]
    with StreamClient(urls[0], headers=headers) as first:
        first.wait_open()
        before = server.stats()
        with ExitStack() as stack:
            for url in urls * 5:
                client = stack.enter_context(StreamClient(url, headers=headers))
                client.wait_open()
            wait_until(lambda: server.stats()["threads"] <= before["threads"], 30)
            wait_until(lambda: server.stats()["database_files"] <= before["database_files"], 30)
            assert server.stats()["streams"] == before["streams"] + 5 * len(urls)
