"""Events that one process sends, on streams that other processes hold."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.services.deadline import wait_until
from tests.services.python import run_python
from tests.services.redis import Redis
from tests.sse_client import StreamClient, assert_sequence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.services.servers import AppServer

LAYERS = {
    "core": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}
SEND = """
import sys, time
from django_eventstream import send_event
for channel, first, last in (argument.rsplit(":", 2) for argument in sys.argv[1:]):
    for n in range(int(first), int(last) + 1):
        send_event(channel, "message", {"channel": channel, "n": n, "at": time.monotonic()})
"""
PAUSED_SEND = SEND + "        time.sleep(0.02)\n"


def layer_settings(redis: Redis, layer: str) -> dict[str, Any]:
    backend = {"BACKEND": LAYERS[layer], "CONFIG": {"hosts": [redis.url]}}
    return {
        "CHANNEL_LAYERS": {"default": backend},
        "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.LooseChannelManager",
    }


@contextmanager
def clients_of(
    servers: Iterable[AppServer], channels: Iterable[str], each: int = 2
) -> Iterator[list[StreamClient]]:
    query = "&".join(f"channel={channel}" for channel in channels)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(StreamClient(f"{server.url}/events/?{query}"))
            for server in servers
            for _ in range(each)
        ]
        for client in clients:
            client.wait_open()
        yield clients


def delays(clients: Iterable[StreamClient]) -> list[float]:
    """Seconds from before `send_event()` in one process to the arrival in another."""
    return [arrival.at - arrival.json()["at"] for client in clients for arrival in client.events]


class TestWithNoBroker:
    def test_every_process_delivers_within_a_second_on_sqlite(
        self, sqlite_only, app_server, unique_channel
    ):
        servers = [app_server(sqlite_only, kind) for kind in ("uvicorn", "daphne")]
        with clients_of(servers, [unique_channel]) as clients:
            run_python(PAUSED_SEND, f"{unique_channel}:1:50", database=sqlite_only.settings)
            for client in clients:
                client.wait_for(50)
                assert_sequence(client, unique_channel, range(1, 51))
            assert statistics.median(delays(clients)) < 1

    def test_every_process_sends_to_every_other(self, sqlite_only, app_server, unique_channel):
        kinds = ("uvicorn", "uvicorn", "daphne", "daphne")
        servers = [app_server(sqlite_only, kind) for kind in kinds]
        with clients_of(servers, [unique_channel], each=1) as clients:
            for n in range(1, 41):
                servers[n % 4].send(
                    (unique_channel, "message", {"channel": unique_channel, "n": n})
                )
            for client in clients:
                client.wait_for(40)
                assert_sequence(client, unique_channel, range(1, 41))


class TestWithPostgres:
    @pytest.mark.parametrize("kind", ["uvicorn", "daphne"])
    def test_notifications_make_other_processes_deliver_at_once(
        self, postgres_only, app_server, unique_channel, kind
    ):
        # A poll that never comes: what arrives was announced.
        settings = {"EVENTSTREAM_POLL_SECONDS": 600}
        servers = [app_server(postgres_only, kind, settings=settings) for _ in range(2)]
        with clients_of(servers, [unique_channel]) as clients:
            wait_until(lambda: listeners(postgres_only) == 2)
            run_python(PAUSED_SEND, f"{unique_channel}:1:100", database=postgres_only.settings)
            for client in clients:
                client.wait_for(100)
                assert_sequence(client, unique_channel, range(1, 101))
            print("delay", statistics.median(delays(clients)), max(delays(clients)))
            assert statistics.median(delays(clients)) < 0.1


def listeners(database) -> int:
    return int(
        database.server.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %' "
            f"AND datname = '{database.settings['NAME']}'"
        )
    )


@pytest.mark.parametrize("layer", LAYERS)
class TestWithAChannelLayer:
    def test_events_reach_every_process_at_once(
        self, sqlite_only, app_server, redis_server, unique_channel, layer
    ):
        settings = {**layer_settings(redis_server, layer), "EVENTSTREAM_POLL_SECONDS": 600}
        servers = [app_server(sqlite_only, k, settings=settings) for k in ("uvicorn", "daphne")]
        channels = [unique_channel, f"loose-{unique_channel}"]
        with clients_of(servers, channels) as clients:
            time.sleep(1)
            arguments = [f"{channel}:1:50" for channel in channels]
            run_python(PAUSED_SEND, *arguments, database=sqlite_only.settings, settings=settings)
            for client in clients:
                client.wait_for(100)
                for channel in channels:
                    assert_sequence(client, channel, range(1, 51), ids=channel == unique_channel)
            print("delay", statistics.median(delays(clients)), max(delays(clients)))
