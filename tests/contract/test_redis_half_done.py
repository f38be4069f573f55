"""What is said of an append that Redis did in part, or whose answer was lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import redis as redis_client
from django.test.utils import override_settings

from django_eventstream.events import Event
from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.redis_server import RedisServer
from django_eventstream.storage.redis import RedisStorage
from tests.cut_answers import CutAnswers
from tests.redis_log import client_of, connection_to, redis_log, stream_of
from tests.services.redis import Redis

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "redis.md"
RIGHTS = re.search(r"ACL SETUSER app on >secret(.*?)```", GUIDE.read_text(), re.DOTALL).group(1)


def event(channel: str = "a", data: str = "x") -> Event:
    return Event(channel, "message", data)


def ids(log: RedisStorage, channel: str = "a", after: int = 0) -> list[int | None]:
    return [found.id for found in log.read(channel, after, 100)]


@pytest.fixture
def log(redis_server) -> RedisStorage:
    return redis_log(redis_server)


@pytest.fixture
def restricted(redis_server):
    """`restricted(rights)` is a log whose user has no other ones."""
    admin = redis_client.Redis(port=redis_server.port)

    def make(rights: str) -> RedisStorage:
        admin.execute_command("ACL", "SETUSER", "app", "reset", "on", ">secret", *rights.split())
        return redis_log(redis_server, username="app", password="secret")

    yield make
    admin.execute_command("ACL", "DELUSER", "app")
    admin.close()


# Rights


def test_the_rights_that_the_guide_names_are_enough(restricted, caplog):
    log = restricted(RIGHTS)
    for _ in range(3):
        log.append([event() for _ in range(20)])
    assert log.get_position(["a"]).ids == {"a": 60}
    assert log.trim("a", None, 10, 100) == 50
    assert len(log.read("a", 50, 100)) == 10
    assert log.get_channels() == ["a"]
    assert log.begin_epoch() == log.append([event()])[0].epoch
    assert caplog.text == ""


def test_without_the_right_to_publish_events_are_stored_and_somebody_else_must_tell(
    restricted, caplog
):
    """It raised that nothing was stored, and stored it."""
    log = restricted(RIGHTS.replace("+publish ", "-publish "))
    assert [log.append([event()])[0].id for _ in range(3)] == [1, 2, 3]
    assert not log.is_announcing
    assert log.begin_epoch() == log.get_position(["a"]).epoch
    assert caplog.text.count("does not announce them") == 1
    restricted(RIGHTS)
    log.append([event()])
    assert log.is_announcing
    assert ids(log) == [1, 2, 3, 4]


@pytest.mark.parametrize("right", ["+pexpire ", "+xtrim ", "+set "])
def test_without_a_right_to_look_after_the_log_events_are_stored(
    restricted, redis_server, caplog, right
):
    """It raised that nothing was stored, and stored it."""
    log = restricted(RIGHTS)
    log.append([event()])
    restricted(RIGHTS.replace(right, "-" + right[1:]))
    with override_settings(EVENTSTREAM_RETENTION_COUNT=30):
        for _ in range(2):
            log.append([event() for _ in range(20)])
    assert ids(redis_log(redis_server), after=11)[-1] == 41
    assert caplog.text.count("does not look after the log") == 1


def test_without_the_right_to_list_keys_nothing_of_the_predecessor_is_taken_over(
    restricted, redis_server
):
    log = restricted(RIGHTS.replace("+keys ", "").replace("+config|get ", ""))
    with client_of(redis_log(redis_server)) as client:
        client.set("event_counter:a", 7)
    assert log.append([event()])[0].id == 1
    assert log.get_position([]).epoch > 0


@pytest.mark.parametrize("right", ["+info ", "+xadd ", "+eval "])
def test_without_a_right_that_is_needed_nothing_is_stored(restricted, redis_server, right):
    log = restricted(RIGHTS.replace(right, ""))
    with pytest.raises(StorageUnavailableError, match="can't run|permission") as raised:
        log.append([event()])
    assert not raised.value.may_be_stored
    assert ids(redis_log(redis_server)) == []


# All or nothing


def test_a_key_of_somebody_else_stops_the_events_of_all_channels(log):
    """Those of the channels before it were stored, and nobody was told."""
    log.append([event("a")])
    with client_of(log) as client:
        client.set(stream_of("b"), "not a stream")
    with pytest.raises(StorageUnavailableError, match="WRONGTYPE") as raised:
        log.append([event("a"), event("b")])
    assert not raised.value.may_be_stored
    assert ids(log) == [1]
    assert log.get_position("a").ids == {"a": 1}


def test_counters_behind_the_events_stop_no_channel(log):
    """Redis refused the second channel once it had stored the first."""
    log.append([event("b")] * 3)
    with client_of(log) as client:
        client.hset("eventstream:ids", "b", client.hget("eventstream:ids", "b").replace("3-", "1-"))
    assert [found.id for found in log.append([event("a"), event("b")])] == [1, 4]


def test_a_key_that_is_no_hash_stops_the_log_before_it_begins(log):
    with client_of(log) as client:
        client.set("event_counter:a", 7)
        client.set("eventstream:old", "not a hash")
        with pytest.raises(StorageUnavailableError, match="WRONGTYPE"):
            log.append([event()])
        assert not client.exists("eventstream:ids")
        client.delete("eventstream:old")
    assert log.append([event()])[0].id == 8


def fill(log: RedisStorage) -> None:
    for _ in range(1_000):
        log.append([event(data="x" * 1_000), event("b", "x" * 1_000)])


def test_a_full_redis_stores_the_events_of_all_channels_or_of_none(log):
    log.append([event(data="1")])
    with client_of(log) as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 200_000)
        try:
            with pytest.raises(StorageUnavailableError, match="maxmemory") as raised:
                fill(log)
            assert not raised.value.may_be_stored
        finally:
            client.config_set("maxmemory", "0")
    assert log.get_position("a").ids["a"] == log.get_position("b").ids["b"] + 1
    assert len(ids(log, "b")) == len(ids(log, "a")) - 1 > 0


def test_a_replica_stores_nothing(running):
    primary, replica = running(Redis()), running(Redis())
    redis_log(primary).append([event()])
    replica.command(f"REPLICAOF 127.0.0.1 {primary.port}")
    log = RedisStorage(RedisServer("REDIS", connection_to(replica), "eventstream", 0.2))
    with pytest.raises(StorageUnavailableError, match="read only") as raised:
        log.append([event()])
    assert not raised.value.may_be_stored


# Answers


def test_a_lost_answer_says_that_the_events_may_be_stored(redis_server):
    """It said that nothing was."""
    with CutAnswers(redis_server.port) as cut:
        options = {"port": cut.port, "socket_timeout": 3, "socket_connect_timeout": 3}
        server = RedisServer("REDIS", connection_to(redis_server, **options), "eventstream", 0.01)
        log = RedisStorage(server)
        log.append([event()])
        cut.next_answer()
        with pytest.raises(StorageUnavailableError) as raised:
            log.append([event()])
        assert raised.value.may_be_stored
        assert "may be stored" in str(raised.value)
        cut.next_answer()
        with pytest.raises(StorageUnavailableError) as raised:
            log.get_position(["a"])
        assert not raised.value.may_be_stored
    assert ids(redis_log(redis_server)) == [1, 2]


def test_a_redis_that_is_not_there_has_stored_nothing(running):
    redis = running(Redis())
    redis.kill()
    log = RedisStorage(RedisServer("REDIS", connection_to(redis), "eventstream", 0.1))
    with pytest.raises(StorageUnavailableError, match="refused") as raised:
        log.append([event()])
    assert not raised.value.may_be_stored
