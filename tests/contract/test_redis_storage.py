"""What a log in Redis promises besides the contract."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.test.utils import override_settings
from django.utils import timezone

from django_eventstream.channelmanager import DefaultChannelManager
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.exceptions import (
    HistoryGoneError,
    IncompatibleSettings,
    StorageUnavailableError,
)
from django_eventstream.redis_server import RedisServer
from django_eventstream.storage.redis import RedisStorage
from tests.cut_answers import CutAnswers
from tests.redis_log import client_of, connection_to, redis_log, settings_of, stream_of
from tests.services.deadline import wait_until
from tests.services.ports import free_port
from tests.services.python import run_python
from tests.services.redis import Redis

DAY = 24 * 60 * 60


@pytest.fixture
def log(redis_server) -> RedisStorage:
    return redis_log(redis_server)


def event(channel: str = "a", data: str = "x") -> Event:
    return Event(channel, "message", data)


def ids(log: RedisStorage, channel: str = "a", after: int = 0) -> list[int | None]:
    return [found.id for found in log.read(channel, after, 100_000)]


def data(log: RedisStorage, channel: str = "a", after: int = 0) -> list[str]:
    return [found.data for found in log.read(channel, after, 100_000)]


def calls(log: RedisStorage) -> int:
    """How many commands Redis was sent by clients; those of scripts are counted by name only."""
    with client_of(log) as client:
        statistics = client.info("commandstats")
        names = ("evalsha", "eval", "multi", "exec")
        return sum(statistics.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names)


class ShortMemory(DefaultChannelManager):
    """Keeps ten events, for a minute."""

    def get_retention(self, channel):
        retention = super().get_retention(channel)
        return type(retention)(seconds=60, count=10)


class NoMemory(DefaultChannelManager):
    def get_retention(self, channel):
        raise RuntimeError("a fault of the project")


# Round trips


@pytest.mark.parametrize("count", [1, 10, 1_000])
def test_an_append_is_one_round_trip(log, count):
    log.append([event()])
    before = calls(log)
    log.append([event(f"channel {n % 3}") for n in range(count)])
    assert calls(log) - before == 1


def test_a_page_and_a_position_are_one_round_trip_each(log):
    log.append([event(data=str(n)) for n in range(5_000)])
    log.read("a", 0, 1)
    log.get_position(["a"])
    before = calls(log)
    log.read("a", 0, 2_000)
    assert calls(log) - before == 1
    log.read("a", 2_000, 2_000, 10_000)
    assert calls(log) - before == 2
    log.get_position([f"channel {n}" for n in range(1_000)])
    assert calls(log) - before == 3


# Many at once


def test_threads_share_a_log_without_a_gap(log):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: log.append([event(data=str(n)), event("b", str(n))]), range(400)))
    for channel in "ab":
        assert ids(log, channel) == list(range(1, 401))
        assert sorted(map(int, data(log, channel))) == list(range(400))


def test_processes_that_fork_go_on_with_the_same_log(log, redis_server):
    code = """
import os, sys
from tests.contract.test_redis_storage import event
from django_eventstream.backends import get_storage
log = get_storage()
log.append([event()])
children = []
for _ in range(3):
    if not (child := os.fork()):
        for _ in range(20):
            log.append([event()])
        os._exit(0)
    children.append(child)
for _ in range(20):
    log.append([event()])
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""
    run_python(code, settings=settings_of(connection_to(redis_server)))
    assert ids(log) == list(range(1, 82))


def test_projects_with_prefixes_of_their_own_share_a_server(redis_server):
    logs = [
        RedisStorage(RedisServer("REDIS", connection_to(redis_server), prefix, 3))
        for prefix in ("one", "two")
    ]
    for number, log in enumerate(logs):
        log.append([event(data=str(number))] * (number + 1))
    assert [data(log) for log in logs] == [["0"], ["1", "1"]]


# Answers that do not come


def test_an_append_whose_answer_was_cut_off_is_done_once(log, redis_server):
    log.append([event(data="0")])
    with CutAnswers(redis_server.port) as cut:
        cautious = redis_log(redis_server, port=cut.port)
        cautious.append([event(data="1")])
        for n in range(2, 6):
            cut.next_answer()
            assert [found.id for found in cautious.append([event(data=str(n))])] == [n + 1]
        assert cut.count == 4
    assert data(log) == ["0", "1", "2", "3", "4", "5"]


def test_an_append_that_arrives_after_the_next_one_is_not_done_again(log, monkeypatch):
    """Asked again over another connection, its sender had gone on before the first came through."""
    log.append([event(data="0")])
    client, sent = log._ready_to_ask().client, []
    evalsha = client.evalsha
    monkeypatch.setattr(client, "evalsha", lambda *given: sent.append(given) or evalsha(*given))
    log.append([event(data="1")])
    log.append([event(data="2")])
    evalsha(*sent[0])
    assert data(log) == ["0", "1", "2"]


def test_an_append_waits_for_a_redis_that_starts_again(running):
    redis = running(Redis(appendonly=True))
    log = redis_log(redis)
    log.append([event(data="1")])
    redis.kill()
    starting = threading.Timer(0.5, redis.start)
    starting.start()
    assert [found.id for found in log.append([event(data="2")])] == [2]
    starting.join()
    assert data(log) == ["1", "2"]


def test_a_redis_that_is_away_for_long_is_not_waited_for_each_time(running):
    redis = running(Redis())
    log = RedisStorage(RedisServer("STORAGE_CONNECTION", connection_to(redis), "x", 0.3))
    log.append([event()])
    redis.kill()
    durations = []
    for question in (lambda: log.append([event()]), lambda: log.read("a", 0, 1)) * 3:
        begin = time.monotonic()
        with pytest.raises(StorageUnavailableError, match="EVENTSTREAM_STORAGE_CONNECTION"):
            question()
        durations.append(time.monotonic() - begin)
    assert sorted(durations)[2] < 0.3
    redis.start()
    wait_until(lambda: log.append([event()])[0].id)


def test_a_full_redis_takes_nothing_and_says_so(log, redis_server):
    log.append([event(data="1")])
    with client_of(log) as client:
        client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(StorageUnavailableError, match="maxmemory"):
                log.append([event(data="2"), event("b")])
            assert data(log) == ["1"]
        finally:
            client.config_set("maxmemory", "0")
    log.append([event(data="2")])
    assert data(log) == ["1", "2"]


# Lives


def test_an_empty_redis_begins_a_life_of_its_own(log, redis_server):
    log.append([event()] * 5)
    before = log.get_position(["a"])
    redis_server.flush()
    after = log.get_position(["a"])
    assert (before.ids, after.ids) == ({"a": 5}, {"a": 0})
    assert after.epoch > before.epoch > 0
    [found] = log.append([event()])
    assert (found.id, found.epoch) == (1, after.epoch)
    assert [found.epoch for found in log.read("a", 0, 9)] == [after.epoch]


def test_whoever_comes_first_makes_the_epoch_and_all_others_take_it(redis_server):
    logs = [redis_log(redis_server) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        epochs = set(pool.map(lambda log: log.append([event()])[0].epoch, logs))
    assert epochs == {logs[0].get_position([]).epoch}


def test_the_epoch_and_the_ids_are_lost_together(log):
    """Evicted alone, the ids had been given again in the same life."""
    log.append([event()] * 3)
    before = log.get_position([]).epoch
    with client_of(log) as client:
        keys = set(client.keys("*ids"))
        assert len(keys) == 1
        client.delete(*keys)
    assert log.append([event()])[0].id == 4
    assert log.get_position([]).epoch != before


def test_a_redis_that_keeps_all_that_it_acknowledged_goes_on(running):
    redis = running(Redis(appendonly=True))
    log = redis_log(redis)
    for n in range(1, 6):
        [found] = log.append([event(data=str(n))])
        assert found.id == n
        redis.kill()
        redis.start()
    assert data(log) == ["1", "2", "3", "4", "5"]
    assert {found.epoch for found in log.read("a", 0, 9)} == {found.epoch}


def test_a_redis_that_may_have_lost_something_begins_a_new_epoch(running, caplog):
    """It came back with less, gave the same ids again, and clients took the new events for old."""
    redis = running(Redis(appendonly=True, fsync="everysec"))
    log = redis_log(redis)
    log.append([event()])
    before = log.get_position([]).epoch
    assert log.append([event()])[0].epoch == before
    redis.terminate()
    redis.start()
    [found] = log.append([event()])
    assert (found.id, found.epoch) == (3, log.get_position([]).epoch)
    assert found.epoch > before
    assert redis_log(redis).append([event()])[0].epoch == found.epoch
    assert caplog.text.count("a new epoch of the event log has begun") == 1


def test_a_replica_that_takes_over_begins_a_new_epoch(running):
    primary, replica = running(Redis(appendonly=True)), running(Redis(appendonly=True))
    log = redis_log(primary)
    log.append([event()] * 3)
    before = log.get_position([]).epoch
    replica.command(f"REPLICAOF 127.0.0.1 {primary.port}")
    other = redis_log(replica)
    with client_of(other) as client:
        wait_until(lambda: client.exists(stream_of("a")))
    primary.kill()
    replica.command("REPLICAOF NO ONE")
    assert [found.id for found in other.append([event()])] == [4]
    assert other.get_position([]).epoch > before


def test_two_projects_notice_a_restart_each_for_itself(running):
    redis = running(Redis(appendonly=True, fsync="everysec"))
    logs = [
        RedisStorage(RedisServer("REDIS", connection_to(redis, db=db), "eventstream", 3))
        for db in (0, 1)
    ]
    before = [log.append([event()])[0].epoch for log in logs]
    redis.restart()
    after = [log.append([event()])[0].epoch for log in logs]
    assert all(new > old for old, new in zip(before, after, strict=True))


# What goes, and what stays


def test_a_silent_channel_goes_as_a_whole_and_its_ids_are_not_used_again(log):
    log.append([event()] * 3)
    log.append([event(CONTROL_CHANNEL)])
    with client_of(log) as client:
        assert DAY - 60 < client.ttl(stream_of("a")) <= DAY
        assert 3_540 < client.ttl(stream_of(CONTROL_CHANNEL)) <= 3_600
        with override_settings(EVENTSTREAM_RETENTION_SECONDS=None):
            log.append([event()])
        assert client.ttl(stream_of("a")) == -1
        client.delete(stream_of("a"))
    assert log.get_position(["a"]).ids == {"a": 4}
    assert ids(log, after=4) == []
    with pytest.raises(HistoryGoneError) as raised:
        log.read("a", 3, 10)
    assert raised.value.oldest == 5
    assert log.append([event()])[0].id == 5


def test_a_channel_is_gone_when_its_last_event_has_expired(log):
    with override_settings(EVENTSTREAM_RETENTION_SECONDS=0.2):
        log.append([event()] * 3)
    with client_of(log) as client:
        wait_until(lambda: not client.exists(stream_of("a")))
    assert log.append([event()])[0].id == 4


def test_appending_keeps_every_channel_within_its_limits(log):
    with override_settings(EVENTSTREAM_CHANNELMANAGER_CLASS=f"{__name__}.ShortMemory"):
        for _ in range(10):
            log.append([event(f"channel {n % 20}") for n in range(200)])
    with client_of(log) as client:
        lengths = [client.xlen(stream_of(f"channel {n}")) for n in range(20)]
    assert all(10 <= length < 10 + 16 + 10 for length in lengths)
    assert ids(log, "channel 0", 90) == list(range(91, 101))


def test_a_manager_that_cannot_say_what_to_keep_stops_no_event(log, caplog):
    with override_settings(EVENTSTREAM_CHANNELMANAGER_CLASS=f"{__name__}.NoMemory"):
        assert log.append([event()])[0].id == 1
    assert "get_retention() of the channel manager failed" in caplog.text


def test_a_clock_that_goes_back_does_not_stop_trimming(log):
    with client_of(log) as client:
        log.append([event()])
        [(stream_id, _)] = client.xrange(stream_of("a"))
        later = int(stream_id.split("-")[1]) + 3_600_000
        client.xadd(stream_of("a"), {"e": "message\n\nx"}, id=f"2-{later}")
        client.hset("eventstream:ids", "a", f"2-{later}")
    log.append([event()])
    assert log.trim("a", timezone.now() + timedelta(minutes=30), None, 10) == 1
    assert ids(log, after=1) == [2, 3]


def test_a_counter_deleted_by_hand_goes_on_after_the_events_that_are_there(log):
    log.append([event()] * 3)
    with client_of(log) as client:
        client.hdel("eventstream:ids", "a")
    assert [found.id for found in log.append([event()] * 2)] == [4, 5]


# What the predecessor left


def old_event(client, channel: str, number: int, text: str) -> None:
    """As 5.3.4 stored it."""
    value = json.dumps({"type": "message", "data": text})
    client.set(f"event:{channel}:{number}", value, ex=DAY)


def test_ids_of_the_predecessor_go_on_and_its_events_are_read(log):
    with client_of(log) as client:
        client.set("event_counter:a", 7)
        client.set("event_counter:ü:1", 2)
        for number in range(4, 8):
            old_event(client, "a", number, json.dumps({"text": f"ü💥{number}"}))
    position = log.get_position(["a", "ü:1", "b"])
    assert position.ids == {"a": 7, "ü:1": 2, "b": 0}
    assert position.epoch == 0
    assert [found.id for found in log.append([event(data="8"), event(data="9")])] == [8, 9]
    expected = [(n, json.dumps({"text": f"ü💥{n}"})) for n in range(4, 8)] + [(8, "8"), (9, "9")]
    found = log.read("a", 3, 100)
    assert [(one.id, one.data) for one in found] == expected
    assert [one.id for one in log.read("a", 4, 2)] == [5, 6]
    assert [one.id for one in log.read("a", 6, 2)] == [7, 8]
    for after in range(3):
        with pytest.raises(HistoryGoneError) as raised:
            log.read("a", after, 1)
        assert raised.value.oldest == 4
    with client_of(log) as client:
        assert client.get("event_counter:a") == "7"


def test_a_log_of_its_own_does_not_look_for_the_predecessor_again(log):
    log.append([event()])
    with client_of(log) as client:
        client.set("event_counter:b", 7)
    assert log.append([event("b")])[0].id == 1


def test_what_is_no_counter_of_the_predecessor_is_left_alone(log):
    with client_of(log) as client:
        client.hset("event_counter:a", "x", "y")
        client.set("event_counter:b", "many")
        client.set("event_counter:c", "3")
    assert log.get_position("abc").ids == {"a": 0, "b": 0, "c": 3}


# Settings


def test_settings_are_read_when_the_log_is_used(redis_server):
    log = RedisStorage()
    with pytest.raises(IncompatibleSettings, match="EVENTSTREAM_STORAGE_CONNECTION"):
        log.append([event()])
    with override_settings(EVENTSTREAM_REDIS=connection_to(redis_server)):
        assert log.append([event()])[0].id == 1


@pytest.mark.parametrize("value", ["localhost:6379", {"hots": "localhost"}])
def test_a_connection_that_is_none_is_named(value):
    with (
        override_settings(EVENTSTREAM_STORAGE_CONNECTION=value),
        pytest.raises(IncompatibleSettings, match="EVENTSTREAM_STORAGE_CONNECTION"),
    ):
        RedisStorage().append([event()])


def test_options_of_the_project_do_not_change_what_is_read(redis_server):
    log = redis_log(redis_server, decode_responses=False, encoding="latin-1")
    log.append([event("ü", "💥")])
    assert data(log, "ü") == ["💥"]


def test_without_the_package_redis_everything_else_works():
    code = """
import sys
assert "redis" not in sys.modules
sys.modules["redis"] = None
from django.core.management import call_command
from django_eventstream.storage import RedisStorage, RedisPackageIsNotAvailable
from django_eventstream import Event
try:
    RedisStorage().append([Event("a", "t", "x")])
except RedisPackageIsNotAvailable as error:
    print(error)
try:
    call_command("check")
except SystemExit as error:
    print(error)
except Exception as error:
    print(error)
"""
    printed = run_python(code, settings=settings_of({"port": free_port()}))
    assert "EVENTSTREAM_STORAGE_CONNECTION needs the package redis" in printed
    assert "eventstream.E032" in printed
