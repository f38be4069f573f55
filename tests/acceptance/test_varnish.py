"""A real Varnish with its default VCL in front of the application: nobody gets what others got."""

from __future__ import annotations

import pytest

from django_eventstream.events import Event
from django_eventstream.storage import DjangoModelStorage
from tests.proxied import RECOVERY
from tests.services.ports import free_port
from tests.services.varnish import Varnish
from tests.sse_client import StreamClient, assert_sequence, numbered

MANAGER = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.proxied.MembersOnly"}


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_two_users_behind_pushpin_and_varnish_get_each_their_own_and_nothing_else(
    app_server, pushpin, running, sqlite_only, settings, kind
):
    """Client → Pushpin → Varnish → application. All recoveries have one path, whose answers said
    nothing to caches: Varnish gave one user's private events to the other, for two minutes."""
    port = free_port()
    proxy = pushpin(running(Varnish(port)).port)
    configured = {
        "GRIP_URL": proxy.grip_url,
        "EVENTSTREAM_RECOVERY_SECONDS": 2,
        "MIDDLEWARE": ["tests.proxied.TellRecoveries", *settings.MIDDLEWARE],
        **MANAGER,
    }
    server = app_server(sqlite_only, kind, port=port, settings=configured)
    clients = {
        name: StreamClient(
            f"{proxy.url}/events/?channel=own-{name}", headers=server.log_in(name), reconnect=False
        )
        for name in ("ann", "bob")
    }
    # The proxy hears of nothing: what comes has been asked for.
    log = DjangoModelStorage(using=sqlite_only.alias)
    with clients["ann"], clients["bob"]:
        for client in clients.values():
            client.wait_open()
        for number in (1, 2):
            log.append([Event(f"own-{name}", "message", f"{name} {number}") for name in clients])
            for client in clients.values():
                client.wait_for(number)
    for name, client in clients.items():
        assert [event.data for event in client.events] == [f"{name} 1", f"{name} 2"]
    assert server.log_text().count(RECOVERY) >= 4


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn+wrapper"])
def test_streams_of_one_address_are_each_their_own_behind_varnish(
    app_server, running, sqlite_only, unique_channel, kind
):
    """Neither shared nor kept, with positions of their own."""
    server = app_server(sqlite_only, kind)
    url = f"{running(Varnish(server.port)).url}/events/?channel={unique_channel}"
    server.send(*numbered(unique_channel, range(1, 6)))
    with (
        StreamClient(url) as early,
        StreamClient(url, last_event_id=f"{unique_channel}:0") as whole,
    ):
        early.wait_open()
        whole.wait_for(5)
        server.send(*numbered(unique_channel, [6]))
        with StreamClient(url) as late:
            late.wait_open()
            server.send(*numbered(unique_channel, [7]))
            for client, first in ((early, 6), (whole, 1), (late, 7)):
                client.wait_for(lambda client: client.has(unique_channel, 7))
                assert_sequence(client, unique_channel, range(first, 8))
