"""A database that does not answer any more, and does not say so: PostgreSQL behind a frozen way."""

from __future__ import annotations

import pytest

from django_eventstream import send_events
from tests.services.databases import Database
from tests.services.deadline import wait_until
from tests.services.forwarder import Forwarder
from tests.sse_client import StreamClient, numbered


@pytest.fixture
def way(postgres_only):
    with Forwarder(postgres_only.server.port) as forwarder:
        yield forwarder


@pytest.fixture
def behind(postgres_only, way) -> Database:
    return Database("behind", {**postgres_only.settings, "PORT": str(way.port)})


def is_served_or_sent_away(client: StreamClient) -> bool:
    return client.is_open or bool(client.connections and client.connections[-1].end)


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn+wrapper"])
def test_a_frozen_database_holds_up_no_stream_for_longer_than_it_lasts(
    app_server, postgres_only, behind, way, unique_channel, kind
):
    """All streams of the process got nothing but keep-alives from then on, and new ones no byte."""
    server = app_server(behind, kind)
    url = f"{server.url}/events/?channel={unique_channel}"

    def send(number: int) -> None:
        with postgres_only.as_default():
            send_events(numbered(unique_channel, [number]))

    with StreamClient(url) as held:
        held.wait_open()
        send(1)
        held.wait_for(lambda c: c.has(unique_channel, 1))

        way.freeze(new_ones=False)
        with StreamClient(url, reconnect=False) as newcomer:
            newcomer.wait_for(is_served_or_sent_away)
        send(2)
        held.wait_for(lambda c: c.has(unique_channel, 2))

        way.freeze(new_ones=True)
        with StreamClient(url, reconnect=False) as newcomer:
            newcomer.wait_for(lambda c: c.connections and c.connections[-1].end)
            assert newcomer.connections[-1].status == 200
            assert 1_000 <= newcomer.retry <= 5_000
        send(3)
        way.thaw()
        held.wait_for(lambda c: c.has(unique_channel, 3))
        with StreamClient(url, reconnect=False) as newcomer:
            newcomer.wait_open()
        assert held.numbers(unique_channel) == [1, 2, 3]
        assert len(held.connections) == 1

        way.freeze(new_ones=True)
        before = way.opened
        with StreamClient(url, reconnect=False) as newcomer:
            newcomer.wait_for(lambda c: way.opened > before)
            server.terminate()


def test_a_client_with_a_ticket_is_sent_away_from_a_frozen_log_without_asking_django(
    app_server, behind, way, unique_channel, settings
):
    """It waited for ever for what had been revoked meanwhile, with nothing sent but its request."""
    middleware = ["tests.middleware.count_requests", *settings.MIDDLEWARE]
    manager = "tests.managers.TicketChannelManager"
    options = {"EVENTSTREAM_CHANNELMANAGER_CLASS": manager, "MIDDLEWARE": middleware}
    server = app_server(behind, "uvicorn+wrapper", settings=options)
    url, headers = f"{server.url}/events/?channel={unique_channel}", server.log_in("anna")
    with StreamClient(url, headers=headers) as client:
        cursor = client.wait_open().last_event_id
    server.restart()
    with StreamClient(url, headers=headers) as first:
        # A process that has not answered anybody yet honours no ticket.
        first.wait_open()
    wait_until(lambda: server.stats()["streams"] == 0)
    asked = server.stats()["streams_asked_for"]
    way.freeze(new_ones=True)
    with StreamClient(url, headers=headers, last_event_id=cursor, reconnect=False) as client:
        client.wait_for(lambda c: c.connections and c.connections[-1].end)
        assert client.connections[-1].status == 200
        assert 1_000 <= client.retry <= 5_000
    assert server.stats()["streams_asked_for"] == asked
