"""Users whose primary keys are UUIDs or text, and users who were deleted: who gets what."""

from __future__ import annotations

from contextlib import ExitStack
from urllib.parse import quote

import pytest

from tests.acceptance.test_redis import wait_until_heard
from tests.acceptance.test_several_processes import NO_POLL
from tests.services.ports import free_port
from tests.services.python import manage, run_python
from tests.settings import INSTALLED_APPS, sqlite
from tests.sse_client import StreamClient, numbered

# Text that means something in a URL, in a cursor, in a proxy's filter and in a header.
ANNA, BERT = "änna:1,%&=; x", "bert@example.org"
CHANGE = """
import json, sys
from django.contrib.auth import get_user_model
from django.db import transaction
from django_eventstream import channel_permission_changed, send_event
action, name, channel = sys.argv[1:]
user = get_user_model().objects.get(username=name)
with transaction.atomic():
    if action == "skip the key":
        send_event(channel, "message", {"channel": channel, "n": 1}, skip_user_ids=[user.pk])
    elif action == "skip the user":
        send_event(channel, "message", {"channel": channel, "n": 2}, skip_user_ids=[user])
    elif action == "refuse":
        user.is_staff = False
        user.save()
        channel_permission_changed(user, channel)
    elif action == "delete":
        user.is_staff = False
        channel_permission_changed(user, channel)
        user.delete()
"""


class Site:
    """Servers of one database of their own, whose users are of this model."""

    def __init__(self, app_server, directory, model: str, **settings) -> None:
        self._app_server = app_server
        self.settings = sqlite(str(directory / "people.sqlite3"))
        self.process = {
            "database": self.settings,
            "settings": {
                "AUTH_USER_MODEL": f"people.{model}",
                "INSTALLED_APPS": [*INSTALLED_APPS, "tests.people"],
                "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager",
                "SILENCED_SYSTEM_CHECKS": ["auth.W004"],
                **settings,
            },
        }
        manage("migrate", "--run-syncdb", "--verbosity=0", **self.process)

    def server(self, kind: str, **options):
        return self._app_server(self, kind, settings=self.process["settings"], **options)

    def change(self, action: str, name: str, channel: str) -> None:
        run_python(CHANGE, action, name, channel, **self.process)


@pytest.fixture
def make_site(app_server, tmp_path):
    return lambda model, **settings: Site(app_server, tmp_path, model, **settings)


def assert_ended_once(client: StreamClient, channel: str) -> None:
    """The one `stream-error` is whole JSON; the page's next attempt is refused."""
    client.wait_for(lambda it: it.of_type("stream-error"))
    client.wait_for(lambda it: len(it.connections) > 1 and it.connections[1].status)
    [error] = client.of_type("stream-error")
    assert error.last_event_id == "error"
    assert error.json() == {
        "condition": "forbidden",
        "text": f"Permission denied to channels: {channel}",
        "channels": [channel],
    }
    assert client.connections[1].status == 400


@pytest.mark.parametrize("model", ["Numbered", "Named"])
def test_users_with_other_keys_skip_events_and_lose_permissions_in_every_process(
    make_site, redis_server, unique_channel, model
):
    """Two servers, of both lanes, learn it from the log, or from Redis alone."""
    broker = {"EVENTSTREAM_REDIS": {"host": "127.0.0.1", "port": redis_server.port}}
    site = make_site(model, **({} if model == "Numbered" else broker | NO_POLL))
    servers = [site.server("uvicorn"), site.server("uvicorn+wrapper")]
    channel = f"staff-{unique_channel}"
    with ExitStack() as stack:
        hers, his = (
            [
                stack.enter_context(
                    StreamClient(
                        f"{server.url}/events/?channel={channel}",
                        headers=server.log_in(quote(name)),
                    )
                )
                for server in servers
            ]
            for name in (ANNA, BERT)
        )
        for client in (*hers, *his):
            client.wait_open()
        if model == "Named":
            wait_until_heard(redis_server, servers)
        site.change("skip the key", ANNA, channel)
        site.change("skip the user", ANNA, channel)
        servers[0].send(*numbered(channel, [3]))
        for client in (*hers, *his):
            client.wait_for(lambda it: it.has(channel, 3))
        assert [client.numbers(channel) for client in hers] == [[3], [3]]
        assert [client.numbers(channel) for client in his] == [[1, 2, 3], [1, 2, 3]]
        site.change("refuse", ANNA, channel)
        for client in hers:
            assert_ended_once(client, channel)
        site.change("delete", BERT, channel)
        for client in his:
            assert_ended_once(client, channel)
            # It came with its cursor, which lets nobody in.
            assert client.connections[1].sent_last_event_id == "error"
    for server in servers:
        headers = server.log_in(quote(BERT))
        site.change("delete", BERT, channel)
        url = f"{server.url}/events/?channel={channel}"
        with StreamClient(
            url, headers=headers, last_event_id=f"{channel}:1", reconnect=False
        ) as late:
            late.wait_for(lambda it: it.of_type("stream-error"))
            assert late.of_type("stream-error")[0].json()["condition"] == "forbidden"
            assert late.events == []


@pytest.mark.parametrize("model", ["Numbered", "Named"])
def test_users_with_other_keys_skip_events_and_lose_permissions_behind_a_proxy(
    make_site, pushpin, unique_channel, model
):
    port = free_port()
    proxy = pushpin(port)
    site = make_site(model, GRIP_URL=proxy.grip_url)
    server = site.server("gunicorn", port=port)
    channel = f"staff-{unique_channel}"
    url = f"{proxy.url}/events/?channel={channel}"
    with (
        StreamClient(url, headers=server.log_in(quote(ANNA))) as hers,
        StreamClient(url, headers=server.log_in(quote(BERT))) as his,
    ):
        hers.wait_open()
        his.wait_open()
        site.change("skip the key", ANNA, channel)
        server.send(*numbered(channel, [3]))
        for client in (hers, his):
            client.wait_for(lambda it: it.has(channel, 3))
        assert hers.numbers(channel) == [3]
        assert his.numbers(channel) == [1, 3]
        site.change("refuse", ANNA, channel)
        assert_ended_once(hers, channel)
        assert len(his.connections) == 1
        site.change("delete", BERT, channel)
        assert_ended_once(his, channel)
