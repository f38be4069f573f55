"""Events that one process sends, on streams that others hold. See `test_four_processes.py`."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections

from tests.layers import LAYERS, layer_on, listening, members
from tests.services.databases import server_database
from tests.services.deadline import wait_until
from tests.services.postgres import Postgres
from tests.services.python import run_python, start_python
from tests.sse_client import StreamClient, assert_sequence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.services.redis import Redis
    from tests.services.servers import AppServer

SERVERS = ("uvicorn+wrapper", "daphne")
NO_POLL = {"EVENTSTREAM_POLL_SECONDS": 600}
"""What arrives although nobody asks the log was announced."""

SEND = """
import sys, time
from django_eventstream import send_event
pause, arguments = float(sys.argv[1]), sys.argv[2:]
for channel, first, last in (argument.rsplit(":", 2) for argument in arguments):
    for n in range(int(first), int(last) + 1):
        send_event(channel, "message", {"channel": channel, "n": n, "at": time.monotonic()})
        time.sleep(pause)
"""

CLOSE = """
import sys
from django_eventstream import channel_permission_changed
from tests.managers import ClosableChannelManager
ClosableChannelManager.is_open = False
channel_permission_changed(None, sys.argv[1])
"""


def send_elsewhere(*ranges: str, pause: float = 0, **environment: Any) -> None:
    """Sends `channel:first:last` from a process of its own, to its end."""
    run_python(SEND, str(pause), *ranges, **environment)


@contextmanager
def clients_of(
    servers: Iterable[AppServer], *channels: str, each: int = 2
) -> Iterator[list[StreamClient]]:
    """So many clients of each server, that are connected and read these channels."""
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


def assert_all_have(clients: Iterable[StreamClient], channel: str, last: int) -> None:
    """Every client gets exactly 1 to `last`, with the ids 1 to `last`."""
    for client in clients:
        client.wait_for(lambda client: client.has(channel, last))
        assert_sequence(client, channel, range(1, last + 1))


def delays(clients: Iterable[StreamClient], numbers: Sequence[int]) -> list[float]:
    """Seconds from before `send_event()` in one process to the arrival in another."""
    found = [(arrival, arrival.json()) for client in clients for arrival in client.events]
    return [arrival.at - data["at"] for arrival, data in found if data["n"] in numbers]


def rounds(count: int, size: int) -> list[range]:
    """`count` ranges, one after the other, beginning with 1."""
    return [range(n * size + 1, (n + 1) * size + 1) for n in range(count)]


class TestWithNoBroker:
    def test_an_event_is_everywhere_within_a_second(self, sqlite_only, app_server, unique_channel):
        servers = [app_server(sqlite_only, kind) for kind in SERVERS]
        slowest = []
        with clients_of(servers, unique_channel) as clients:
            for numbers in rounds(3, 10):
                last = numbers[-1]
                send_elsewhere(
                    f"{unique_channel}:{numbers[0]}:{last}",
                    pause=0.05,
                    database=sqlite_only.settings,
                )
                assert_all_have(clients, unique_channel, last)
                slowest.append(max(delays(clients, numbers)))
        # The machine may be busy once, not each time.
        assert min(slowest) < 1

    def test_every_process_sends_to_every_other(self, sqlite_only, app_server, unique_channel):
        servers = [
            app_server(sqlite_only, kind) for kind in (*SERVERS, "uvicorn", "granian+wrapper")
        ]
        with clients_of(servers, unique_channel, each=1) as clients:
            for n in range(1, 41):
                event = (unique_channel, "message", {"channel": unique_channel, "n": n})
                servers[n % len(servers)].send(event, atomic=n % 3 == 0)
            assert_all_have(clients, unique_channel, 40)


class TestWithPostgres:
    def test_an_event_is_everywhere_within_a_tenth_of_a_second(
        self, postgres_only, app_server, unique_channel
    ):
        servers = [app_server(postgres_only, kind, settings=NO_POLL) for kind in SERVERS]
        medians = []
        with clients_of(servers, unique_channel) as clients:
            wait_until(lambda: listening(postgres_only) == len(servers))
            for numbers in rounds(3, 20):
                last = numbers[-1]
                send_elsewhere(
                    f"{unique_channel}:{numbers[0]}:{last}",
                    pause=0.02,
                    database=postgres_only.settings,
                )
                assert_all_have(clients, unique_channel, last)
                medians.append(statistics.median(delays(clients, numbers)))
        assert min(medians) < 0.1

    def test_events_of_transactions_are_announced_too(
        self, postgres_only, app_server, unique_channel
    ):
        servers = [app_server(postgres_only, kind, settings=NO_POLL) for kind in SERVERS]
        with clients_of(servers, unique_channel) as clients:
            wait_until(lambda: listening(postgres_only) == len(servers))
            for n in range(0, 20, 2):
                two = [
                    (unique_channel, "message", {"channel": unique_channel, "n": number})
                    for number in (n + 1, n + 2)
                ]
                servers[n // 2 % 2].send(*two, atomic=True)
            assert_all_have(clients, unique_channel, 20)

    def test_a_process_without_streams_does_not_listen(
        self, postgres_only, app_server, unique_channel
    ):
        servers = [app_server(postgres_only, kind, settings=NO_POLL) for kind in SERVERS]
        for last in (10, 20):
            with clients_of(servers, unique_channel) as clients:
                wait_until(lambda: listening(postgres_only) == len(servers))
                send_elsewhere(
                    f"{unique_channel}:{last - 9}:{last}", database=postgres_only.settings
                )
                for client in clients:
                    client.wait_for(10)
                    assert_sequence(client, unique_channel, range(last - 9, last + 1))
            wait_until(lambda: listening(postgres_only) == 0)

    def test_nothing_is_lost_when_the_database_is_killed(
        self, app_server, unique_channel, django_db_blocker
    ):
        with Postgres() as server, django_db_blocker.unblock():
            database = replace(server_database(server), alias="killed")
            database.migrate()
            connections[database.alias].close()
            servers = [app_server(database, kind, settings=NO_POLL) for kind in SERVERS]
            with clients_of(servers, unique_channel) as clients:
                for last, announced in ((20, True), (40, False), (60, False), (80, True)):
                    send_elsewhere(
                        f"{unique_channel}:{last - 19}:{last}",
                        database=database.settings,
                        settings={"EVENTSTREAM_POSTGRES_NOTIFY": announced},
                    )
                    server.kill()
                    server.start()
                    # Nobody polls: they hear of it because they listen again, and look then.
                    assert_all_have(clients, unique_channel, last)


@pytest.mark.parametrize("layer", LAYERS)
class TestWithAChannelLayer:
    @pytest.fixture
    def settings_of(self, redis_server: Redis, layer):
        return {
            "CHANNEL_LAYERS": layer_on(layer, redis_server.url),
            "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.LooseChannelManager",
        }

    def test_an_event_is_everywhere_at_once_and_only_once(
        self, sqlite_only, app_server, redis_server, unique_channel, layer, settings_of
    ):
        settings = {**settings_of, **NO_POLL}
        servers = [app_server(sqlite_only, kind, settings=settings) for kind in SERVERS]
        loose = f"loose-{unique_channel}"
        medians = []
        with clients_of(servers, unique_channel, loose) as clients:
            wait_until(lambda: members(redis_server, layer) == len(servers))
            for numbers in rounds(3, 20):
                first, last = numbers[0], numbers[-1]
                send_elsewhere(
                    f"{unique_channel}:{first}:{last}",
                    f"{loose}:{first}:{last}",
                    pause=0.02,
                    database=sqlite_only.settings,
                    settings=settings,
                )
                assert_all_have(clients, unique_channel, last)
                for client in clients:
                    client.wait_for(lambda client, last=last: client.has(loose, last))
                    assert_sequence(client, loose, range(1, last + 1), ids=False)
                medians.append(statistics.median(delays(clients, numbers)))
        assert min(medians) < 0.1

    def test_a_process_that_holds_streams_does_not_hear_its_own_events_twice(
        self, sqlite_only, app_server, redis_server, unique_channel, layer, settings_of
    ):
        servers = [app_server(sqlite_only, kind, settings=settings_of) for kind in SERVERS]
        loose = f"loose-{unique_channel}"
        with clients_of(servers, loose) as clients:
            wait_until(lambda: members(redis_server, layer) == len(servers))
            for n in range(1, 41):
                servers[n % 2].send((loose, "message", {"channel": loose, "n": n}))
                # Two processes that send to a channel without ids have no common order.
                for client in clients:
                    client.wait_for(n)
            for client in clients:
                assert_sequence(client, loose, range(1, 41), ids=False)

    def test_without_a_log_it_carries_everything(
        self, sqlite_only, app_server, redis_server, unique_channel, layer, settings_of
    ):
        settings = {
            **settings_of,
            "EVENTSTREAM_STORAGE_CLASS": None,
            "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.ClosableChannelManager",
        }
        environment = {"database": sqlite_only.settings, "settings": settings}
        servers = [app_server(sqlite_only, kind, settings=settings) for kind in SERVERS]
        with clients_of(servers, unique_channel) as clients:
            wait_until(lambda: members(redis_server, layer) == len(servers))
            send_elsewhere(f"{unique_channel}:1:50", **environment)
            for client in clients:
                client.wait_for(50)
                assert_sequence(client, unique_channel, range(1, 51), ids=False)
            run_python(CLOSE, unique_channel, **environment)
            for client in clients:
                client.wait_for(lambda client: client.of_type("stream-error"))

    def test_nothing_is_lost_or_doubled_when_redis_is_killed(
        self, sqlite_only, app_server, redis_server, unique_channel, layer, settings_of, tmp_path
    ):
        servers = [app_server(sqlite_only, kind, settings=settings_of) for kind in SERVERS]
        loose = f"loose-{unique_channel}"
        environment = {"database": sqlite_only.settings, "settings": settings_of}
        with clients_of(servers, unique_channel, loose) as clients:
            sender = start_python(
                SEND, "0.02", f"{unique_channel}:1:400", log=tmp_path / "sender", **environment
            )
            for number in (50, 150):
                clients[0].wait_for(lambda c, n=number: c.has(unique_channel, n))
                redis_server.kill()
                clients[0].wait_for(lambda c, n=number + 50: c.has(unique_channel, n))
                redis_server.start()
            assert sender.wait() == 0, sender.log_text()
            assert_all_have(clients, unique_channel, 400)
            wait_until(lambda: members(redis_server, layer) == len(servers))
            send_elsewhere(f"{loose}:1:20", **environment)
            for client in clients:
                client.wait_for(lambda client: client.has(loose, 20))
                assert_sequence(client, loose, range(1, 21), ids=False)

    def test_without_redis_sending_is_quick_and_the_log_has_everything(
        self, sqlite_only, app_server, redis_server, unique_channel, layer, settings_of
    ):
        servers = [app_server(sqlite_only, kind, settings=settings_of) for kind in SERVERS]
        with clients_of(servers, unique_channel) as clients:
            redis_server.kill()
            times = []
            for n in range(1, 41):
                event = (unique_channel, "message", {"channel": unique_channel, "n": n})
                started = time.monotonic()
                servers[n % 2].send(event)
                times.append(time.monotonic() - started)
            assert_all_have(clients, unique_channel, 40)
        # Waiting for Redis even once would take PUBLISH_TIMEOUT, or a client's own retries.
        assert statistics.median(times) < 0.1
        assert max(times) < 1

    def test_processes_that_start_without_redis_use_it_when_it_comes(
        self, sqlite_only, app_server, redis_server, unique_channel, layer, settings_of
    ):
        redis_server.kill()
        settings = {**settings_of, **NO_POLL}
        servers = [app_server(sqlite_only, kind, settings=settings) for kind in SERVERS]
        with clients_of(servers, unique_channel) as clients:
            send_elsewhere(
                f"{unique_channel}:1:10", database=sqlite_only.settings, settings=settings
            )
            redis_server.start()
            # Found in the log, for they look when they are connected.
            assert_all_have(clients, unique_channel, 10)
            send_elsewhere(
                f"{unique_channel}:11:20", database=sqlite_only.settings, settings=settings
            )
            assert_all_have(clients, unique_channel, 20)
