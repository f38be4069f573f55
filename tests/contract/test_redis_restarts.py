"""A Redis that lost something when it was started again: it is noticed before an id is given again.

Each loses its last events here: it is killed after a snapshot, and comes back with that.
"""

from __future__ import annotations

import pytest

from django_eventstream.events import Event
from django_eventstream.redis_server import RedisServer
from django_eventstream.storage.redis import RedisStorage
from tests.redis_log import client_of, connection_to, redis_log, stream_of
from tests.services.deadline import wait_until
from tests.services.redis import Redis

EVENT = Event("a", "message", "x")


class Lossy:
    """A log with five events, of which two are lost with the next restart."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.log = redis_log(redis)
        self.log.append([EVENT] * 3)
        assert self.redis.command("SAVE").startswith(b"+OK")
        self.epoch = self.log.append([EVENT] * 2)[-1].epoch
        assert self.log.get_position(["a"]).ids == {"a": 5}
        assert len(self.log.read("a", 0, 9)) == 5
        self.client = self.log._ready_to_ask().client

    def lose(self) -> None:
        self.redis.kill()
        self.redis.start()

    def lose_once_after(self, method: str, monkeypatch, *, failing: bool = False) -> None:
        """Restart Redis when the client has got the first answer of this kind."""
        ask = getattr(self.client, method)

        def ask_and_lose(*arguments):
            try:
                answer = ask(*arguments)
            except Exception:
                if failing:
                    monkeypatch.setattr(self.client, method, ask)
                    self.lose()
                raise
            if not failing:
                monkeypatch.setattr(self.client, method, ask)
                self.lose()
            return answer

        monkeypatch.setattr(self.client, method, ask_and_lose)

    def check(self) -> None:
        """Event 4 is another one than it was, and says so by its epoch."""
        [found] = self.log.append([EVENT])
        assert found.id == 4
        assert found.epoch > self.epoch
        assert self.log.get_position(["a"]).epoch == found.epoch
        assert redis_log(self.redis).append([EVENT])[0].epoch == found.epoch


@pytest.fixture
def lossy(running) -> Lossy:
    return Lossy(running(Redis()))


@pytest.mark.parametrize("verb", ["append", "read", "position", "begin", "trim"])
def test_the_first_question_after_a_restart_finds_out(lossy, verb):
    """A position was asked for by HMGET, which works in any run: it came with the old epoch."""
    lossy.lose()
    log = lossy.log
    if verb == "read":
        assert {found.epoch for found in log.read("a", 0, 9)}.isdisjoint({lossy.epoch})
    elif verb == "position":
        position = log.get_position(["a"])
        assert position.ids == {"a": 3}
        assert position.epoch > lossy.epoch
    elif verb == "begin":
        log.begin_epoch()
    elif verb == "trim":
        log.trim("a", None, 3, 10)
    lossy.check()


@pytest.mark.parametrize("step", ["info", "config_get", "eval"])
def test_a_second_restart_at_any_step_is_found_out_as_well(lossy, monkeypatch, step):
    """After `eval` Redis had begun an epoch, lost it, and appended in the one before."""
    lossy.lose_once_after(step, monkeypatch)
    lossy.lose()
    lossy.check()


def test_a_restart_before_a_script_is_given_to_the_server_again_is_found_out(lossy, monkeypatch):
    lossy.redis.command("SCRIPT FLUSH")
    lossy.lose_once_after("evalsha", monkeypatch, failing=True)
    lossy.check()


def test_another_process_that_gave_the_scripts_to_the_server_again_hides_no_restart(lossy):
    """Noticed was only that Redis had forgotten the scripts."""
    lossy.lose()
    scripts = lossy.log._ready_to_ask().scripts
    for script in (scripts.append, scripts.position, scripts.read):
        lossy.client.script_load(script.text)
    lossy.check()


def test_a_replica_that_knows_the_scripts_is_found_out_when_it_takes_over(running):
    """Somebody had asked it before: it appended in the epoch of the primary, which was ahead."""
    primary, replica = running(Redis()), running(Redis())
    log = redis_log(primary)
    before = log.append([EVENT] * 3)[0].epoch
    replica.command(f"REPLICAOF 127.0.0.1 {primary.port}")
    other = redis_log(replica)
    with client_of(other) as client:
        wait_until(lambda: client.exists(stream_of("a")))
        client.script_load(other._ready_to_ask().scripts.append.text)
        log.append([EVENT])
        replica.command("REPLICAOF NO ONE")
        assert other.append([EVENT])[0].epoch > before


def test_a_loss_in_a_run_that_promised_nothing_counts_in_a_better_one(running):
    """Started again with `appendfsync always`, Redis was believed to have lost nothing ever."""
    redis = running(Redis(appendonly=True, fsync="everysec"))
    log = redis_log(redis)
    before = log.append([EVENT])[0].epoch
    redis.terminate()
    redis.fsync = "always"
    redis.start()
    after = log.append([EVENT])[0].epoch
    assert after > before
    redis.kill()
    redis.start()
    assert log.append([EVENT])[0].epoch == after


def test_a_run_that_does_not_always_wait_for_the_disk_promises_nothing(running):
    """With `no-appendfsync-on-rewrite` Redis loses what it acknowledged during a rewrite."""
    redis = running(Redis(appendonly=True))
    redis.command("CONFIG SET no-appendfsync-on-rewrite yes")
    log = redis_log(redis)
    before = log.append([EVENT])[0].epoch
    redis.kill()
    redis.start()
    assert log.append([EVENT])[0].epoch > before


def test_a_log_of_before_goes_on_in_the_run_that_it_knows(redis_server):
    """`run` had one part only. Another run than that costs every client a reset."""
    log = redis_log(redis_server)
    before = log.append([EVENT])[0].epoch
    with client_of(log) as client:
        run, _ = client.get("eventstream:run").split()
        client.set("eventstream:run", run)
    assert log.append([EVENT])[0].epoch == before


def test_two_prefixes_notice_a_restart_each_for_itself(running):
    redis = running(Redis(appendonly=True, fsync="everysec"))
    logs = [RedisStorage(RedisServer("REDIS", connection_to(redis), prefix, 3)) for prefix in "xy"]
    before = [log.append([EVENT])[0].epoch for log in logs]
    redis.restart()
    after = [log.append([EVENT])[0].epoch for log in logs]
    assert all(new > old for old, new in zip(before, after, strict=True))
