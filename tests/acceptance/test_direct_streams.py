"""Streams that a real server process holds itself, with nothing but the database."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from django_eventstream import send_events
from tests.services.databases import Database
from tests.services.deadline import STOPPING, wait_until, wait_until_stable
from tests.services.python import run_python
from tests.services.servers import AppServer
from tests.sse_client import StreamClient, numbered
from tests.swarm import Swarm

SERVERS = [
    kind + lane
    for lane in ("", "+wrapper")
    for kind in ("uvicorn", "daphne", "hypercorn", "granian")
]

SEND = """
import json, sys, time
from django_eventstream import send_event
for channel, event_type, data in json.loads(sys.argv[1]):
    send_event(channel, event_type, data)
print(time.monotonic())
"""


@pytest.fixture(params=SERVERS)
def server(request, app_server, sqlite_only) -> AppServer:
    return app_server(sqlite_only, request.param)


@contextmanager
def stream(server: AppServer, *channels: str, **options) -> Iterator[StreamClient]:
    query = "&".join(f"channel={channel}" for channel in channels)
    with StreamClient(f"{server.url}/events/?{query}", **options) as client:
        yield client.wait_open()


def assert_exact(client: StreamClient, channel: str, last: int) -> None:
    """Each event of the channel once, in order, with the id that the log gave it."""
    assert client.numbers(channel) == list(range(1, last + 1))
    assert client.ids(channel) == list(range(1, last + 1))
    assert client.of_type("stream-reset") == []
    assert client.of_type("stream-error") == []


def test_events_of_the_same_process_arrive_in_order_and_at_once(server, unique_channel):
    with stream(server, unique_channel) as client:
        for number in range(1, 21):
            server.send(*numbered(unique_channel, [number]))
        server.send(*numbered(unique_channel, range(21, 41)), atomic=True)
        client.wait_for(lambda c: c.has(unique_channel, 40))
        assert_exact(client, unique_channel, 40)


def test_events_of_another_process_arrive_within_a_second(
    server, sqlite_only, unique_channel, send_elsewhere
):
    with stream(server, unique_channel) as client:
        for number in range(1, 4):
            sent_at = send_elsewhere(sqlite_only, numbered(unique_channel, [number]))
            client.wait_for(lambda c, n=number: c.has(unique_channel, n))
            assert client.events[-1].at - sent_at < 1
        assert_exact(client, unique_channel, 3)


def test_a_client_that_is_cut_again_and_again_misses_nothing(server, unique_channels):
    one, two = unique_channels(2)
    with stream(server, one, two) as both, stream(server, two) as single:
        for number in range(1, 61):
            server.send(*numbered(one, [number]), *numbered(two, [number]))
            if number % 7 == 0:
                both.wait_open().cut()
            if number % 11 == 0:
                single.wait_open().cut()
        for client in (both, single):
            client.wait_for(lambda c: c.has(two, 60))
            assert len(client.connections) > 4
        both.wait_for(lambda c: c.has(one, 60))
        assert_exact(both, one, 60)
        assert_exact(both, two, 60)
        assert_exact(single, two, 60)


def test_a_server_that_is_killed_and_started_again_goes_on_where_it_was(
    server, sqlite_only, unique_channel
):
    with stream(server, unique_channel, retry=0.02) as client:
        server.send(*numbered(unique_channel, range(1, 11)))
        client.wait_for(lambda c: c.has(unique_channel, 5))
        server.kill()
        with sqlite_only.as_default():
            send_events(numbered(unique_channel, range(11, 31)))
        server.start()
        server.send(*numbered(unique_channel, range(31, 41)))
        client.wait_for(lambda c: c.has(unique_channel, 40))
        assert_exact(client, unique_channel, 40)


def test_a_client_cut_before_its_first_event_has_a_place_to_come_back_to(
    server, sqlite_only, unique_channel
):
    with stream(server, unique_channel) as client:
        server.kill()
        with sqlite_only.as_default():
            send_events(numbered(unique_channel, [1]))
        server.start()
        client.wait_for(lambda c: c.has(unique_channel, 1))
        assert_exact(client, unique_channel, 1)


def test_on_sigterm_streams_end_at_a_boundary_and_the_process_goes(server, unique_channel):
    with ExitStack() as stack:
        clients = [
            stack.enter_context(stream(server, unique_channel, reconnect=False)) for _ in range(5)
        ]
        server.send(*numbered(unique_channel, [1]))
        for client in clients:
            client.wait_for(lambda c: c.has(unique_channel, 1))
        asked_at = time.monotonic()
        if server.kind == "hypercorn":
            # Its workers hear of the end by no signal, unless the whole group gets it.
            os.killpg(server.pid, signal.SIGTERM)
        server.terminate()
        assert time.monotonic() - asked_at < STOPPING
        for client in clients:
            client.wait_for(lambda c: c.connections[-1].end)
            assert_exact(client, unique_channel, 1)
        assert all(1_000 <= client.retry <= 5_000 for client in clients)
        assert len({client.retry for client in clients}) > 1


@pytest.mark.parametrize("kind", SERVERS)
def test_open_streams_hold_no_thread_and_no_database_connection(
    app_server, postgres_only, unique_channel, kind
):
    """Two hundred users who are logged in; 5.3.4 held 200 threads and 200 connections."""
    server = app_server(postgres_only, kind)
    url = f"{server.url}/events/?channel={unique_channel}"
    headers = server.log_in("anna")

    def cost() -> tuple[int, int]:
        return server.stats()["threads"], postgres_only.open_connections()

    with ExitStack() as stack:
        swarms = []
        for wave in range(5):  # PostgreSQL has a hundred connections in all
            swarms.append(stack.enter_context(Swarm([url] * 40, headers=headers, retry=None)))
            swarms[-1].wait_open()
            if wave == 0:
                few = wait_until_stable(cost)
        threads, connections = few
        if server.lane:
            threads += 20  # of those who ask Django, however many streams there are
        most = (threads, connections)
        wait_until(lambda: is_within(cost(), most), message=lambda: f"{cost()} after {few}")
        server.send(*numbered(unique_channel, [1]))
        for swarm in swarms:
            swarm.wait_for(lambda c: c.has(unique_channel, 1))
        # The server is known as one whose `send()` may be stepped by hand.
        assert server.stats()["couriers"] == 0


def is_within(cost: tuple[int, int], most: tuple[int, int]) -> bool:
    return all(one <= limit for one, limit in zip(cost, most, strict=True))


@pytest.fixture
def send_elsewhere() -> Callable[[Database, list], float]:
    """Sends from a process of its own; the time, on the clock that all share, when it had."""

    def send(database: Database, events: list) -> float:
        return float(run_python(SEND, json.dumps(events), database=database.settings))

    return send


def test_with_atomic_requests_a_stream_opens_no_transaction(
    app_server, postgres_only, unique_channel
):
    """It would cost each client that comes back a connection, though nothing is asked on it."""
    atomic = Database("atomic", {**postgres_only.settings, "ATOMIC_REQUESTS": True})
    # Listening takes a connection for a moment, which may be after the first stream has begun.
    server = app_server(atomic, settings={"EVENTSTREAM_POSTGRES_NOTIFY": False})
    url = f"{server.url}/events/?channel={unique_channel}"
    with stream(server, unique_channel):
        opened = server.stats()["connections_opened"]
        with Swarm([url] * 20, retry=None) as swarm:
            swarm.wait_open()
            assert server.stats()["connections_opened"] == opened
