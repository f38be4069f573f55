"""Server processes that tell each other of events through Redis, or keep the log in it."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest

from django_eventstream.events import Event
from tests.acceptance.test_four_processes import (
    COUNTED,
    crowds_of,
    send_one_at_a_time,
)
from tests.acceptance.test_four_processes import assert_all_have as assert_crowds_have
from tests.acceptance.test_several_processes import (
    CLOSE,
    NO_POLL,
    SEND,
    assert_all_have,
    clients_of,
    delays,
    rounds,
    send_elsewhere,
)
from tests.layers import Monitor
from tests.redis_log import connection_to, redis_log, settings_of
from tests.services.deadline import wait_until
from tests.services.python import run_python, start_python
from tests.services.redis import Redis
from tests.sse_client import assert_sequence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.services.servers import AppServer

SERVERS = ("uvicorn+wrapper", "uvicorn", "daphne+wrapper")
NEWS = "eventstream:news:0"
LOOSE = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.LooseChannelManager"}
CLOSABLE = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.ClosableChannelManager"}

WAYS = ("news", "log")
"""Redis tells of events that are stored in the database; or it has the log as well."""


def settings_for(way: str, redis: Redis) -> dict[str, Any]:
    connection = connection_to(redis)
    own = settings_of(connection) if way == "log" else {"EVENTSTREAM_REDIS": connection}
    return {**own, **LOOSE}


def subscribers(redis: Redis) -> int:
    answer = redis.command(f"PUBSUB NUMSUB {NEWS}").rpartition(b":")[2].strip()
    return int(answer or -1)


def wait_until_heard(redis: Redis, servers: Sequence[AppServer]) -> None:
    wait_until(lambda: subscribers(redis) == len(servers))


@pytest.fixture(params=WAYS)
def way(request) -> str:
    return request.param


@pytest.fixture
def redis(way, running) -> Redis:
    """One that keeps what it acknowledged, if it has the log; it is to be killed."""
    return running(Redis(appendonly=way == "log"))


def test_an_event_is_everywhere_at_once_and_only_once(
    sqlite_only, app_server, unique_channel, redis, way
):
    settings = {**settings_for(way, redis), **NO_POLL}
    servers = [app_server(sqlite_only, kind, settings=settings) for kind in SERVERS]
    loose = f"loose-{unique_channel}"
    medians = []
    with clients_of(servers, unique_channel, loose) as clients:
        wait_until_heard(redis, servers)
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


def test_an_event_costs_one_message_for_each_process(
    sqlite_only, app_server, unique_channel, redis, way
):
    kinds = (*SERVERS, "granian+wrapper")
    settings = {**settings_for(way, redis), **NO_POLL}
    servers = [app_server(sqlite_only, kind, settings=settings) for kind in kinds]
    with crowds_of(servers, unique_channel) as crowds:
        wait_until_heard(redis, servers)
        if way == "log":
            # Redis learns what appending is, once.
            redis_log(redis).append([Event("other", "message", "x")])
        monitor = Monitor(redis)
        send_one_at_a_time(servers, crowds, unique_channel)
        assert_crowds_have(crowds, COUNTED)
        commands = list(monitor.commands())
    # Redis sends a copy of what is published to each subscriber: one for each process.
    assert sum('"PUBLISH"' in line for line in commands) == COUNTED
    asked = [line for line in commands if "lua]" not in line and f'log:{unique_channel}"' in line]
    # The log in Redis is written once for each event, and read by nobody.
    assert len(asked) == (COUNTED if way == "log" else 0)


def test_nothing_is_lost_or_doubled_when_redis_is_killed(
    sqlite_only, app_server, unique_channel, redis, way, tmp_path
):
    settings = settings_for(way, redis)
    servers = [app_server(sqlite_only, kind, settings=settings) for kind in SERVERS]
    environment = {"database": sqlite_only.settings, "settings": settings}
    with clients_of(servers, unique_channel) as clients:
        sender = start_python(
            SEND, "0.02", f"{unique_channel}:1:300", log=tmp_path / "sender", **environment
        )
        for number in (50, 150):
            clients[0].wait_for(lambda c, n=number: c.has(unique_channel, n))
            redis.kill()
            if way == "news":
                clients[0].wait_for(lambda c, n=number + 30: c.has(unique_channel, n))
            redis.start()
        assert sender.wait() == 0, sender.log_text()
        assert_all_have(clients, unique_channel, 300)
        for client in clients:
            assert not client.of_type("stream-reset")
        wait_until_heard(redis, servers)
        loose = f"loose-{unique_channel}"
    with clients_of(servers, loose) as clients:
        wait_until_heard(redis, servers)
        send_elsewhere(f"{loose}:1:20", **environment)
        for client in clients:
            client.wait_for(lambda client: client.has(loose, 20))
            assert_sequence(client, loose, range(1, 21), ids=False)


def test_clients_that_come_back_while_redis_was_killed_miss_nothing(
    sqlite_only, app_server, unique_channel, redis, way
):
    settings = settings_for(way, redis)
    server = app_server(sqlite_only, "uvicorn+wrapper", settings=settings)
    environment = {"database": sqlite_only.settings, "settings": settings}
    with clients_of([server], unique_channel, each=3) as clients:
        send_elsewhere(f"{unique_channel}:1:50", **environment)
        assert_all_have(clients, unique_channel, 50)
        server.kill()
        redis.kill()
        redis.start()
        send_elsewhere(f"{unique_channel}:51:100", **environment)
        server.start()
        assert_all_have(clients, unique_channel, 100)


def test_many_processes_send_to_one_channel_without_a_gap(
    sqlite_only, app_server, unique_channel, redis, way, tmp_path
):
    settings = settings_for(way, redis)
    servers = [app_server(sqlite_only, kind, settings=settings) for kind in SERVERS]
    environment = {"database": sqlite_only.settings, "settings": settings}
    with clients_of(servers, unique_channel, each=1) as clients:
        senders = [
            start_python(
                SEND,
                "0",
                f"{unique_channel}:{100 * number + 1}:{100 * number + 100}",
                log=tmp_path / f"sender-{number}",
                **environment,
            )
            for number in range(4)
        ]
        for sender in senders:
            assert sender.wait() == 0, sender.log_text()
        for client in clients:
            client.wait_for(400)
            assert client.ids(unique_channel) == list(range(1, 401))
            assert sorted(client.numbers(unique_channel)) == list(range(1, 401))
            assert client.numbers(unique_channel) == clients[0].numbers(unique_channel)


def test_a_permission_that_ends_is_heard_of_everywhere_at_once(
    sqlite_only, app_server, unique_channel, redis, way
):
    settings = {**settings_for(way, redis), **CLOSABLE, **NO_POLL}
    servers = [app_server(sqlite_only, kind, settings=settings) for kind in SERVERS]
    environment = {"database": sqlite_only.settings, "settings": settings}
    with clients_of(servers, unique_channel) as clients:
        wait_until_heard(redis, servers)
        run_python(CLOSE, unique_channel, **environment)
        for client in clients:
            client.wait_for(lambda client: client.of_type("stream-error"))
            assert len(client.of_type("stream-error")) == 1


def test_without_redis_sending_is_quick_and_the_log_has_everything(
    sqlite_only, app_server, unique_channel, redis_server
):
    settings = settings_for("news", redis_server)
    servers = [app_server(sqlite_only, kind, settings=settings) for kind in SERVERS]
    with clients_of(servers, unique_channel) as clients:
        redis_server.kill()
        times = []
        for n in range(1, 41):
            event = (unique_channel, "message", {"channel": unique_channel, "n": n})
            started = time.monotonic()
            servers[n % len(servers)].send(event)
            times.append(time.monotonic() - started)
        assert_all_have(clients, unique_channel, 40)
    assert max(times) < 1


def test_a_log_that_comes_back_empty_makes_every_client_start_over(
    sqlite_only, app_server, unique_channel, redis_server
):
    """More is sent at once than was sent before: the next id seems to follow on the last one."""
    # A tick between the two would find the log empty.
    settings = {**settings_for("log", redis_server), **NO_POLL}
    servers = [app_server(sqlite_only, kind, settings=settings) for kind in SERVERS]
    environment = {"database": sqlite_only.settings, "settings": settings}
    with clients_of(servers, unique_channel) as clients:
        wait_until_heard(redis_server, servers)
        send_elsewhere(f"{unique_channel}:1:20", **environment)
        assert_all_have(clients, unique_channel, 20)
        log = redis_log(redis_server)
        before = log.get_position([]).epoch
        redis_server.flush()
        log.append([Event(unique_channel, "message", "{}")] * 40)
        after = log.get_position([]).epoch
        for client in clients:
            client.wait_for(lambda client: client.of_type("stream-reset"))
        send_elsewhere(f"{unique_channel}:41:60", **environment)
        for client in clients:
            client.wait_for(lambda client: client.has(unique_channel, 60))
            [reset] = client.of_type("stream-reset")
            assert reset.json()["reasons"] == {unique_channel: "epoch"}
            assert reset.last_event_id == f"{unique_channel}:40,:{after}"
            assert [arrival.last_event_id for arrival in client.events] == [
                *(f"{unique_channel}:{number},:{before}" for number in range(1, 21)),
                *(f"{unique_channel}:{number},:{after}" for number in range(41, 61)),
            ]


def test_a_client_that_was_away_while_the_log_was_emptied_is_told(
    sqlite_only, app_server, unique_channel, redis_server
):
    settings = settings_for("log", redis_server)
    server = app_server(sqlite_only, "uvicorn", settings=settings)
    environment = {"database": sqlite_only.settings, "settings": settings}
    with clients_of([server], unique_channel, each=1) as [client]:
        send_elsewhere(f"{unique_channel}:1:20", **environment)
        client.wait_for(20)
        server.kill()
        redis_server.flush()
        send_elsewhere(f"{unique_channel}:21:60", **environment)
        server.start()
        client.wait_for(lambda client: client.of_type("stream-reset"))
        send_elsewhere(f"{unique_channel}:61:70", **environment)
        client.wait_for(lambda client: client.has(unique_channel, 70))
        assert client.numbers(unique_channel) == [*range(1, 21), *range(61, 71)]
