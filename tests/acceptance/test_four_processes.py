"""Four server processes, hundreds of streams each: what an event costs between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest

from django_eventstream.storage.numbering import NOTIFY_CHANNEL
from tests.benchmarks.crowd import Crowd
from tests.layers import LAYERS, Monitor, layer_on, listening, members
from tests.services.databases import Database
from tests.services.deadline import AT_ONCE, wait_until, wait_until_stable
from tests.services.python import start_python
from tests.services.servers import AppServer
from tests.sse_client import assert_sequence, numbered
from tests.swarm import Swarm

SERVERS = ("uvicorn+wrapper", "granian+wrapper", "uvicorn", "daphne+wrapper")
STREAMS = 200
COUNTED = 5
SENT = 40

# What arrives although nobody asks the log was announced.
NO_POLL = {"EVENTSTREAM_POLL_SECONDS": 600}

SEND = """
import sys, time
from django_eventstream import send_event
channel, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for n in range(first, last + 1):
    send_event(channel, "message", {"channel": channel, "n": n})
    time.sleep(0.03)
"""


@contextmanager
def crowds_of(servers: Sequence[AppServer], channel: str) -> Iterator[list[Crowd]]:
    with ExitStack() as stack:
        urls = [f"{server.url}/events/?channel={channel}" for server in servers]
        yield [stack.enter_context(Crowd(url, STREAMS)) for url in urls]


def assert_all_have(crowds: Sequence[Crowd], last: int) -> None:
    """Every client of every process has exactly 1 to `last`, over one connection."""
    for crowd in crowds:
        crowd.wait_for_last(last)
        crowd.assert_sequence(last)


def send_one_at_a_time(servers: Sequence[AppServer], crowds: Sequence[Crowd], channel: str) -> None:
    """Those that wait together go together: one at a time makes them countable."""
    for number in range(1, COUNTED + 1):
        servers[number % len(servers)].send(*numbered(channel, [number]))
        for crowd in crowds:
            crowd.wait_for_last(number)


@pytest.mark.parametrize("layer", LAYERS)
def test_through_redis_an_event_costs_one_message_for_each_process(
    sqlite_only, app_server, redis_server, unique_channel, layer, tmp_path
):
    """Redis is killed in the middle, and comes back empty: nothing is lost or doubled."""
    settings = {"CHANNEL_LAYERS": layer_on(layer, redis_server.url)}
    servers = [app_server(sqlite_only, kind, settings=settings) for kind in SERVERS]
    with crowds_of(servers, unique_channel) as crowds:
        wait_until(lambda: members(redis_server, layer) == len(servers))
        monitor = Monitor(redis_server)
        send_one_at_a_time(servers, crowds, unique_channel)
        # The other layer publishes once, to the one subscription of each process.
        expected = {"core": COUNTED * len(servers), "pubsub": COUNTED}
        assert monitor.deliveries() == expected[layer]

        environment = {"database": sqlite_only.settings, "settings": settings}
        arguments = (unique_channel, str(COUNTED + 1), str(COUNTED + SENT))
        with closing_process(start_python(SEND, *arguments, log=tmp_path / "log", **environment)):
            crowds[0].wait_for_last(COUNTED + 10)
            redis_server.kill()
            crowds[0].wait_for_last(COUNTED + 25)
            redis_server.start()
            assert_all_have(crowds, COUNTED + SENT)
        wait_until(lambda: members(redis_server, layer) == len(servers))


@contextmanager
def closing_process(process) -> Iterator[None]:
    try:
        yield
        assert process.wait() == 0, process.log_text()
    finally:
        process.kill()


def test_through_postgres_an_event_costs_one_notification_for_each_process(
    postgres_only, app_server, unique_channel
):
    servers = [app_server(postgres_only, kind, settings=NO_POLL) for kind in SERVERS]
    with crowds_of(servers, unique_channel) as crowds, closing(ear(postgres_only)) as heard:
        wait_until(lambda: listening(postgres_only) == len(servers) + 1)
        # A process looks once when it has begun to listen.
        before = wait_until_stable(lambda: [reads(server) for server in servers])
        send_one_at_a_time(servers, crowds, unique_channel)
        assert_all_have(crowds, COUNTED)
        told = heard.notifies(timeout=AT_ONCE, stop_after=COUNTED + 1)
        notifications = [each.payload.partition(".")[2] for each in told]
        assert notifications == [f"{n}:{unique_channel}" for n in range(1, COUNTED + 1)]
        # Two hundred streams read the log once, and not at all where the event itself was sent, but
        # sending asks once.
        for server, count in zip(servers, before, strict=True):
            assert reads(server) - count <= COUNTED


def ear(database: Database) -> psycopg.Connection:
    """A connection that listens as a process does."""
    found = database.settings
    connection = psycopg.connect(
        host=found["HOST"],
        port=found["PORT"],
        user=found["USER"],
        dbname=found["NAME"],
        autocommit=True,
    )
    connection.execute(f"LISTEN {NOTIFY_CHANNEL}")
    return connection


def reads(server: AppServer) -> int:
    return server.stats()["log_statements"].get("SELECT", 0)


def test_four_workers_of_one_server_are_four_processes(sqlite_only, app_server, unique_channel):
    server = app_server(sqlite_only, "uvicorn+wrapper", options=["--workers", "4"])
    # It is ready when one of them is.
    wait_until(lambda: server.log_text().count("Application startup complete") == 4)
    with Swarm([f"{server.url}/events/?channel={unique_channel}"] * 40, retry=0.2) as swarm:
        swarm.wait_open()
        answering: set[int] = set()
        wait_until(lambda: answering.add(server.stats()["pid"]) or len(answering) > 1)
        for number in range(1, 21):
            server.send(*numbered(unique_channel, [number]))
        swarm.wait_for(lambda member: member.has(unique_channel, 20))
        server.restart()
        server.send(*numbered(unique_channel, range(21, 31)))
        swarm.wait_for(lambda member: member.has(unique_channel, 30))
        for member in swarm.members:
            assert_sequence(member, unique_channel, range(1, 31))
