"""Events of other processes through Redis, in this process."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest
from django.test.utils import override_settings

from django_eventstream import backends, send_event
from django_eventstream.events import Event
from django_eventstream.exceptions import PublishError
from django_eventstream.feeds import redis as redis_feed
from django_eventstream.feeds.redis import RedisFeed
from django_eventstream.publishers.redis import RedisPublisher
from tests.integration.test_feeds import Heard, events, following, until
from tests.layers import Monitor, layer_on
from tests.redis_log import client_of, connection_to, redis_log, settings_of
from tests.services.python import run_python

NEWS = "eventstream:news:0"

PUBLISH = """
import json, sys
from django_eventstream.events import Event
from django_eventstream.publishers.redis import RedisPublisher
sent = [Event(*values) for values in json.loads(sys.argv[1])]
RedisPublisher().publish(sent, wait=True)
"""

APPEND = """
import sys
from django_eventstream import send_events
send_events([("a", "message", "x" * int(size)) for size in sys.argv[1:]])
"""


@pytest.fixture
def server(redis_server):
    """A Redis that is configured to carry events."""
    with override_settings(EVENTSTREAM_REDIS=connection_to(redis_server)):
        yield redis_server


@pytest.fixture
def log(redis_server):
    """A Redis that is configured to keep the log."""
    with override_settings(**settings_of(connection_to(redis_server))):
        yield redis_log(redis_server)


def elsewhere(code: str, *arguments: str, redis, settings=None) -> None:
    """Runs code in another process, which has this Redis to tell of events unless it is told."""
    settings = settings or {"EVENTSTREAM_REDIS": connection_to(redis)}
    run_python(code, *arguments, settings=settings)


def as_arguments(sent: list[Event]) -> str:
    return json.dumps([[e.channel, e.type, e.data, e.id] for e in sent])


def test_it_is_used_where_it_is_configured_and_no_layer_besides(server):
    with override_settings(CHANNEL_LAYERS=layer_on("core", server.url)):
        assert [type(feed) for feed in backends.make_feeds()] == [RedisFeed]
        names = [type(publisher).__name__ for publisher in backends.get_publishers()]
    assert names == ["LocalPublisher", "RedisPublisher"]


def test_a_log_in_redis_brings_its_own_news(log):
    assert [type(feed) for feed in backends.make_feeds()] == [RedisFeed]
    with override_settings(EVENTSTREAM_REDIS={"port": 1}):
        assert [type(feed) for feed in backends.make_feeds()] == [RedisFeed]


class TestFeed:
    def test_it_hears_what_another_process_sends(self, server):
        async def main():
            async with following(RedisFeed()) as heard:
                big = Event("c", "message", "x" * 100_000, 4)
                sent = [*events(1, 2, 3), big, *events(5, stored=False)]
                await asyncio.to_thread(elsewhere, PUBLISH, as_arguments(sent), redis=server)
                await until(lambda: len(heard.events) == 5)
                assert heard.events == sent

        asyncio.run(main())

    def test_it_drops_what_this_process_sent(self, server):
        async def main():
            async with following(RedisFeed()) as heard:
                await asyncio.to_thread(RedisPublisher().publish, events(1), wait=True)
                await asyncio.to_thread(elsewhere, PUBLISH, as_arguments(events(2)), redis=server)
                await until(lambda: heard.events)
                assert heard.events == events(2)

        asyncio.run(main())

    def test_it_hears_of_what_is_appended_with_its_ids(self, log, redis_server):
        async def main():
            log.append(events(1, channel="a", stored=False))
            async with following(RedisFeed()) as heard:
                await asyncio.to_thread(append_elsewhere, redis_server, "1", "2")
                await until(lambda: len(heard.events) == 2)
                assert [(e.id, len(e.data), e.epoch) for e in heard.events] == [
                    (2, 3, log.get_position([]).epoch),
                    (3, 4, log.get_position([]).epoch),
                ]
                await asyncio.to_thread(append_elsewhere, redis_server, *["100000"] * 3)
                await until(lambda: heard.hints)
                assert heard.hints == [("a", 6)]
                assert len(heard.events) == 2
                assert heard.looks == 1

        asyncio.run(main())

    def test_it_hears_all_of_a_process_that_stores_events_as_well(self, log, redis_server):
        """One in twenty was dropped: what several threads numbered was sent in another order."""
        code = """
import threading
from django_eventstream.backends import get_storage
from django_eventstream.events import Event
from django_eventstream.publishers.redis import RedisPublisher
publisher, log = RedisPublisher(), get_storage()
def send(name):
    for n in range(100):
        log.append([Event("stored", "message", "")])
        publisher.publish([Event("loose", name, str(n))])
threads = [threading.Thread(target=send, args=(name,)) for name in "abcd"]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
        settings = settings_of(connection_to(redis_server))

        def heard_of(name):
            return [int(event.data) for event in heard.events if event.type == name]

        async def main():
            nonlocal heard
            async with following(RedisFeed()) as heard:
                await asyncio.to_thread(elsewhere, code, redis=redis_server, settings=settings)
                await until(lambda: len(heard.events) == 800)
                assert [heard_of(name) for name in "abcd"] == [list(range(100))] * 4

        heard = Heard()
        asyncio.run(main())

    def test_a_new_epoch_makes_it_look(self, log):
        async def main():
            async with following(RedisFeed()) as heard:
                await asyncio.to_thread(log.begin_epoch)
                await until(lambda: heard.looks == 2)

        asyncio.run(main())

    @pytest.mark.parametrize(
        "text", ["", "{}", "{", "5", "x y\n{}", "1 2\n[]", '1\n{"a":1}', "null"]
    )
    def test_a_message_that_it_does_not_understand_makes_it_look(self, log, server, text):
        async def main():
            async with following(RedisFeed()) as heard:
                await asyncio.to_thread(say, log, text)
                await until(lambda: heard.looks == 2)

        asyncio.run(main())

    def test_what_other_databases_and_projects_say_is_not_heard(self, server):
        async def main():
            async with following(RedisFeed()) as heard:
                for options in ({"db": 1}, {"prefix": "other"}):
                    settings = {
                        "EVENTSTREAM_REDIS": connection_to(server, db=options.get("db", 0)),
                        "EVENTSTREAM_REDIS_PREFIX": options.get("prefix", "eventstream"),
                    }
                    await asyncio.to_thread(
                        elsewhere, PUBLISH, as_arguments(events(1)), redis=server, settings=settings
                    )
                await asyncio.to_thread(elsewhere, PUBLISH, as_arguments(events(2)), redis=server)
                await until(lambda: heard.events)
                assert heard.events == events(2)

        asyncio.run(main())

    def test_it_unsubscribes_and_comes_back(self, server):
        async def main():
            feed = RedisFeed()
            for _ in range(3):
                async with following(feed):
                    assert subscribers(server) == 1
                await until(lambda: subscribers(server) == 0)

        asyncio.run(main())

    def test_it_comes_back_after_redis_was_killed_and_looks(self, server, caplog):
        async def main():
            async with following(RedisFeed()) as heard:
                server.kill()
                await until(lambda: "does not tell" in caplog.text)
                await asyncio.to_thread(server.start)
                await until(lambda: heard.looks == 2)
                await asyncio.to_thread(elsewhere, PUBLISH, as_arguments(events(1)), redis=server)
                await until(lambda: heard.events)

        asyncio.run(main())
        assert caplog.text.count("Redis does not tell of events now") == 1
        assert caplog.text.count("Redis tells of events again") == 1

    def test_it_waits_for_redis_to_come_for_the_first_time(self, server, caplog):
        async def main():
            server.kill()
            heard = Heard()
            task = asyncio.ensure_future(RedisFeed().follow(heard))
            await until(lambda: "does not tell" in caplog.text)
            await asyncio.to_thread(server.start)
            await until(lambda: heard.looks)
            task.cancel()
            await asyncio.wait([task])

        asyncio.run(main())

    def test_silence_is_no_failure_and_a_server_that_froze_is_noticed(
        self, server, monkeypatch, caplog
    ):
        monkeypatch.setattr(redis_feed, "SILENCE_SECONDS", 0.05)

        async def main():
            async with following(RedisFeed()) as heard:
                await until(lambda: pings(server) > 20)
                assert heard.looks == 1
                os.kill(server.pid, signal.SIGSTOP)
                try:
                    await until(lambda: "no sign of life" in caplog.text)
                finally:
                    os.kill(server.pid, signal.SIGCONT)
                await until(lambda: heard.looks == 2)

        with override_settings(EVENTSTREAM_PUBLISH_TIMEOUT=0.5):
            asyncio.run(main())


class TestPublisher:
    def test_a_thousand_events_are_one_message(self, server):
        monitor = Monitor(server)
        RedisPublisher().publish(events(*range(1, 1_001)), wait=True)
        assert monitor.deliveries() == 1

    def test_what_the_log_has_told_of_is_not_told_again(self, log, redis_server):
        monitor = Monitor(redis_server)
        for _ in range(3):
            send_event("a", "message", "x", async_publish=False)
        RedisPublisher().publish(events(1, stored=False), wait=True)
        assert monitor.deliveries() == 3 + 1

    def test_a_waiting_sender_is_told_that_redis_may_not_announce(self, log, redis_server, caplog):
        """It raised that nothing was stored."""
        rights = "on nopass ~* &* +@all -publish"
        with client_of(log) as client:
            client.execute_command("ACL", "SETUSER", "mute", "reset", *rights.split())
            try:
                muted = connection_to(redis_server, username="mute", password="any")
                with override_settings(**settings_of(muted)):
                    with pytest.raises(PublishError, match="publish"):
                        send_event("a", "message", "x", async_publish=False)
                    send_event("a", "message", "y")
            finally:
                client.execute_command("ACL", "DELUSER", "mute")
        assert [event.id for event in log.read("a", 0, 9)] == [1, 2]
        assert caplog.text.count("does not announce them") == 1

    def test_without_redis_only_who_waits_is_told(self, server):
        server.kill()
        publisher = RedisPublisher()
        publisher.publish(events(1))
        with pytest.raises(PublishError, match="Redis"):
            publisher.publish(events(2), wait=True)

    def test_a_command_that_ends_at_once_has_sent_all(self, server):
        code = """
from django_eventstream.events import Event
from django_eventstream.publishers.redis import RedisPublisher
publisher = RedisPublisher()
for n in range(1, 201):
    publisher.publish([Event("c", "message", str(n))])
"""

        async def main():
            async with following(RedisFeed()) as heard:
                await asyncio.to_thread(elsewhere, code, redis=server)
                await until(lambda: len(heard.events) == 200)
                assert [int(event.data) for event in heard.events] == list(range(1, 201))

        asyncio.run(main())


def append_elsewhere(redis, *sizes: str) -> None:
    elsewhere(APPEND, *sizes, redis=redis, settings=settings_of(connection_to(redis)))


def say(log, text: str) -> None:
    with client_of(log) as client:
        assert client.publish(NEWS, text) == 1


def subscribers(redis) -> int:
    return int(redis.command(f"PUBSUB NUMSUB {NEWS}").rpartition(b":")[2])


def pings(redis) -> int:
    found = redis.command("INFO commandstats").partition(b"cmdstat_ping:calls=")[2]
    return int(found.partition(b",")[0] or 0)
