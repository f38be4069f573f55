"""Publishers and feeds against real brokers, in this process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, nullcontext, suppress
from dataclasses import replace

import psycopg
import pytest
from dj_db_conn_pool.core import pool_container
from django.db import connections
from django.test.utils import override_settings

from django_eventstream import backends, processes, send_event
from django_eventstream.events import Event
from django_eventstream.exceptions import PublishError
from django_eventstream.feeds import channels as channels_feed
from django_eventstream.feeds import postgres as postgres_feed
from django_eventstream.feeds.channels import ChannelsFeed
from django_eventstream.feeds.postgres import PostgresFeed
from django_eventstream.publishers import background
from django_eventstream.publishers.background import BackgroundSender
from django_eventstream.publishers.channels import ChannelsPublisher
from django_eventstream.publishers.layer import GROUP, make_layer
from django_eventstream.publishers.messages import Packer, this_process
from tests.layers import LAYERS, Monitor, layer_on, listening, members
from tests.services.databases import server_database
from tests.services.deadline import AT_ONCE, HEALTHY, wait_until
from tests.services.forwarder import Forwarder
from tests.services.ports import free_port
from tests.services.postgres import Postgres
from tests.services.python import run_python

PACKER = Packer()

IN_MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


class Heard:
    """A hub that only writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.hints: list[tuple[str, int]] = []
        self.looks = 0

    def offer(self, events) -> None:
        self.events.extend(events)

    def hint(self, channel: str, last_id: int, log: str | None = None) -> None:
        self.hints.append((channel, last_id))

    def look(self) -> None:
        self.looks += 1


async def until(condition, timeout: float = HEALTHY) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "still not so"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def following(feed):
    heard = Heard()
    task = asyncio.ensure_future(feed.follow(heard))
    try:
        await until(lambda: heard.looks or task.done())
        yield heard
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def events(*numbers: int, channel: str = "c", stored: bool = True) -> list[Event]:
    return [Event(channel, "message", str(n), n if stored else None) for n in numbers]


def from_elsewhere(sent: list[Event], sender: str = "elsewhere") -> list[dict[str, object]]:
    return [{**message, "sender": sender} for message in PACKER.pack(sent)]


async def tell(*messages: dict[str, object]) -> None:
    """Sends to the group as another process would, through a layer of its own."""
    layer = make_layer("default")
    for message in messages:
        await layer.group_send(GROUP, message)


@pytest.fixture(params=LAYERS)
def layer(request, redis_server):
    """The name of a layer that is configured."""
    with override_settings(CHANNEL_LAYERS=layer_on(request.param, redis_server.url)):
        yield request.param


class TestChannelsFeed:
    def test_it_hears_what_another_process_sends(self, layer, redis_server):
        async def main():
            async with following(ChannelsFeed()) as heard:
                big = Event("c", "message", "x" * 300_000, 4)
                sent = [*events(1, 2, 3), big, *events(5, stored=False)]
                await tell(*from_elsewhere(sent))
                await until(lambda: len(heard.events) == 4)
                assert heard.events == [*events(1, 2, 3), *events(5, stored=False)]
                assert heard.hints == [("c", 4)]

        asyncio.run(main())

    def test_it_drops_what_this_process_sent(self, layer, redis_server):
        async def main():
            async with following(ChannelsFeed()) as heard:
                own = list(PACKER.pack(events(1, stored=False)))
                await tell(*own, *from_elsewhere(events(2)))
                await until(lambda: heard.events)
                assert heard.events == events(2)

        asyncio.run(main())

    def test_a_message_that_comes_twice_is_taken_once_where_ids_do_not_tell(
        self, layer, redis_server
    ):
        async def main():
            async with following(ChannelsFeed()) as heard:
                (first,) = from_elsewhere(events(1, stored=False))
                (second,) = from_elsewhere(events(2, stored=False))
                (other,) = from_elsewhere(events(3, stored=False), sender="other")
                await tell(first, second, first, second, other)
                await until(lambda: len(heard.events) == 3)
                assert heard.events == events(1, 2, 3, stored=False)

        asyncio.run(main())

    def test_a_message_that_it_does_not_understand_makes_it_look(self, layer, redis_server):
        async def main():
            async with following(ChannelsFeed()) as heard:
                await tell({"type": "of tomorrow"}, *from_elsewhere(events(1)))
                await until(lambda: heard.events)
                assert heard.looks == 2

        asyncio.run(main())

    def test_it_says_goodbye_and_comes_back(self, layer, redis_server):
        async def main():
            feed = ChannelsFeed()
            for n in (1, 2, 3):
                async with following(feed) as heard:
                    await tell(*from_elsewhere(events(n)))
                    await until(lambda heard=heard: heard.events)
                    assert heard.events == events(n)
                    assert members(redis_server, layer) == 1
                assert members(redis_server, layer) == 0

        asyncio.run(main())

    def test_it_goes_on_while_its_last_life_still_ends(self, layer, redis_server):
        """The last stream leaves and the next comes at once: the hub does not wait between."""

        async def main():
            feed = ChannelsFeed()
            for _ in range(10):
                heard = Heard()
                task = asyncio.ensure_future(feed.follow(heard))
                await until(lambda heard=heard: heard.looks)
                task.cancel()
            async with following(feed) as heard:
                await tell(*from_elsewhere(events(1)))
                await until(lambda: heard.events)
                assert heard.events == events(1)
                await until(lambda: members(redis_server, layer) == 1)

        asyncio.run(main())

    def test_each_event_loop_of_a_process_hears_for_itself(self, layer, redis_server, caplog):
        """Of two loops that share one layer of channels_redis only one can receive."""
        heard: list[int] = []

        async def main():
            async with following(ChannelsFeed()) as listener:
                await until(lambda: len(listener.events) == 3)
                heard.extend(event.id for event in listener.events)

        loops = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
        for number, loop in enumerate(loops, 1):
            loop.start()
            wait_until(lambda number=number: members(redis_server, layer) == number)
        for message in from_elsewhere(events(1, 2, 3)):
            asyncio.run(tell(message))
        for loop in loops:
            loop.join(HEALTHY)
        assert heard == [1, 2, 3, 1, 2, 3]
        assert "does not tell" not in caplog.text

    def test_it_joins_again_when_redis_forgot_it(self, layer, redis_server, monkeypatch):
        monkeypatch.setattr(channels_feed, "REJOIN_SECONDS", 0.1)

        async def main():
            async with following(ChannelsFeed()) as heard:
                redis_server.flush()
                await until(lambda: members(redis_server, layer) == 1)
                await tell(*from_elsewhere(events(1)))
                await until(lambda: heard.events)

        asyncio.run(main())

    def test_it_comes_back_after_redis_was_killed(self, layer, redis_server, caplog):
        async def main():
            async with following(ChannelsFeed()) as heard:
                redis_server.kill()
                await asyncio.to_thread(redis_server.start)
                await until(lambda: members(redis_server, layer) == 1)
                await tell(*from_elsewhere(events(1)))
                await until(lambda: heard.events)

        asyncio.run(main())
        ours = [record for record in caplog.records if record.name.startswith("django_eventstream")]
        assert len(ours) <= 4

    def test_it_waits_for_redis_to_come_for_the_first_time(self, layer, redis_server, caplog):
        async def main():
            redis_server.kill()
            heard = Heard()
            task = asyncio.ensure_future(ChannelsFeed().follow(heard))
            await until(lambda: "does not tell" in caplog.text)
            await asyncio.to_thread(redis_server.start)
            await until(lambda: heard.looks)
            task.cancel()
            await asyncio.wait([task])

        asyncio.run(main())

    def test_silence_is_no_failure(self, redis_server, caplog):
        """channels_redis asks for five seconds, at which redis-py 8 gives up: the feed was torn
        down and made anew whenever nothing was sent for so long."""

        async def main():
            async with following(ChannelsFeed()) as heard:
                await asyncio.sleep(7)
                assert heard.looks == 1

        with override_settings(CHANNEL_LAYERS=layer_on("core", redis_server.url)):
            asyncio.run(main())
        assert "does not tell" not in caplog.text

    def test_in_memory_there_is_nobody_to_hear(self):
        async def main():
            task = asyncio.ensure_future(ChannelsFeed().follow(Heard()))
            done, _ = await asyncio.wait([task], timeout=0.1)
            assert not done
            task.cancel()

        with override_settings(CHANNEL_LAYERS=IN_MEMORY):
            asyncio.run(main())


class TestChannelsPublisher:
    def test_a_thousand_events_are_one_message(self, layer, redis_server):
        async def main():
            async with following(ChannelsFeed()) as heard:
                sender = await asyncio.to_thread(send_thousand)
                await until(lambda: len(heard.events) == 1_000)
                assert sender != this_process().token

        def send_thousand() -> str:
            code = """
from django_eventstream.events import Event
from django_eventstream.publishers.channels import ChannelsPublisher
from django_eventstream.publishers.messages import this_process
ChannelsPublisher().publish([Event("c", "m", str(n), n) for n in range(1, 1001)], wait=True)
print(this_process().token)
"""
            options = {"CHANNEL_LAYERS": layer_on(layer, redis_server.url)}
            return run_python(code, settings=options).strip()

        monitor = Monitor(redis_server)
        asyncio.run(main())
        assert monitor.deliveries() == 1

    def test_a_command_that_ends_at_once_has_sent_all(self, layer, redis_server):
        """By name, not by address: Python starts no threads to resolve names once it ends."""
        code = """
from django_eventstream.events import Event
from django_eventstream.publishers.channels import ChannelsPublisher
publisher = ChannelsPublisher()
for n in range(1, 201):
    publisher.publish([Event("c", "m", str(n))])
"""
        url = redis_server.url.replace("127.0.0.1", "localhost")
        options = {"CHANNEL_LAYERS": layer_on(layer, url)}

        async def main():
            async with following(ChannelsFeed()) as heard:
                await asyncio.to_thread(run_python, code, settings=options)
                await until(lambda: len(heard.events) == 200)
                assert [int(event.data) for event in heard.events] == list(range(1, 201))

        asyncio.run(main())

    def test_processes_that_fork_send_for_themselves(self, layer, redis_server):
        code = """
import os
from django_eventstream.events import Event
from django_eventstream.publishers.channels import ChannelsPublisher
publisher = ChannelsPublisher()
publisher.publish([Event("c", "m", "parent")], wait=True)
children = []
for n in range(3):
    child = os.fork()
    if child == 0:
        publisher.publish([Event("c", "m", f"child {n}")])
        raise SystemExit(0)
    children.append(child)
publisher.publish([Event("c", "m", "parent again")])
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""
        options = {"CHANNEL_LAYERS": layer_on(layer, redis_server.url)}

        async def main():
            async with following(ChannelsFeed()) as heard:
                await asyncio.to_thread(run_python, code, settings=options)
                await until(lambda: len(heard.events) == 5)
                assert sorted(event.data for event in heard.events) == [
                    "child 0",
                    "child 1",
                    "child 2",
                    "parent",
                    "parent again",
                ]

        asyncio.run(main())

    def test_without_redis_it_returns_at_once_and_says_so_once(self, layer, redis_server, caplog):
        redis_server.kill()
        publisher = ChannelsPublisher()
        started = time.monotonic()
        for n in range(100):
            publisher.publish(events(n))
        assert time.monotonic() - started < AT_ONCE
        with pytest.raises(PublishError):
            publisher.publish(events(1), wait=True)
        redis_server.start()
        publisher.publish(events(2), wait=True)
        wait_until(lambda: "takes events again" in caplog.text)
        ours = [r.getMessage() for r in caplog.records if r.name.startswith("django_eventstream")]
        assert [text.partition(":")[0] for text in ours] == [
            "The channel layer does not take events now",
            "The channel layer takes events again",
        ]

    def test_a_redis_that_does_not_answer_is_given_up_in_time(self, layer):
        with (
            closing(socket.create_server(("127.0.0.1", 0))) as silent,
            override_settings(
                CHANNEL_LAYERS=layer_on(layer, f"redis://127.0.0.1:{silent.getsockname()[1]}/0"),
                EVENTSTREAM_PUBLISH_TIMEOUT=0.2,
            ),
        ):
            publisher = ChannelsPublisher()
            started = time.monotonic()
            with pytest.raises(PublishError):
                publisher.publish(events(1), wait=True)
            assert time.monotonic() - started < AT_ONCE

    def test_a_command_ends_in_time_without_redis(self, layer):
        code = """
import time
from django_eventstream.events import Event
from django_eventstream.publishers.channels import ChannelsPublisher
ChannelsPublisher().publish([Event("c", "m", "x", 1)])
"""
        options = {
            "CHANNEL_LAYERS": layer_on(layer, f"redis://127.0.0.1:{free_port()}/0"),
            "EVENTSTREAM_PUBLISH_TIMEOUT": 0.5,
        }
        ended_at = float(run_python(f"{code}print(time.monotonic())", settings=options))
        assert time.monotonic() - ended_at < processes.FLUSH_SECONDS + AT_ONCE

    def test_in_memory_it_sends_nothing(self):
        with override_settings(CHANNEL_LAYERS=IN_MEMORY):
            before = threading.active_count()
            ChannelsPublisher().publish(events(1), wait=True)
            assert threading.active_count() == before

    def test_send_event_uses_it_where_a_layer_is_configured(self, layer, redis_server):
        kinds = [type(publisher) for publisher in backends.get_publishers()]
        assert ChannelsPublisher in kinds


class TestBackgroundSender:
    def sender(self, send, timeout: float = 2) -> BackgroundSender:
        return BackgroundSender("A broker", lambda: nullcontext(send), timeout)

    def test_what_waits_is_bounded(self, monkeypatch, caplog):
        monkeypatch.setattr(background, "QUEUE_CHARACTERS", 10_000)
        is_free = threading.Event()
        taken = []

        def send(batch):
            is_free.wait()
            taken.extend(batch)
            yield len(batch)

        sender = self.sender(send)
        sender.send(events(0))
        wait_until(lambda: not sender._queue._jobs)
        for n in range(1, 1_001):
            sender.send(events(n))
        with pytest.raises(PublishError):
            sender.send(events(1_001), wait=True)
        is_free.set()
        wait_until(lambda: len(taken) > 1)
        sender.send(events(1_002), wait=True)
        numbers = [int(event.data) for event in taken]
        assert numbers == sorted(numbers)
        assert 40 < len(numbers) < 60
        assert caplog.text.count("too many events wait") == 1

    def test_every_outage_is_logged_once_and_so_is_its_end(self, caplog):
        caplog.set_level("INFO", "django_eventstream")
        is_away = False

        def send(batch):
            if is_away:
                raise ConnectionError("it is away")
            yield len(batch)

        sender = self.sender(send)
        for outage in (1, 2):
            is_away = True
            for _ in range(2):
                with pytest.raises(PublishError, match="it is away"):
                    sender.send(events(outage), wait=True)
            is_away = False
            sender.send(events(outage), wait=True)
            wait_until(
                lambda outage=outage: caplog.text.count("A broker takes events again") == outage
            )
            assert caplog.text.count("A broker does not take events now") == outage

    def test_one_event_is_never_too_big(self):
        taken = []

        def send(batch):
            taken.extend(batch)
            yield len(batch)

        big = Event("c", "message", "x" * (background.QUEUE_CHARACTERS + 1))
        self.sender(send).send([big], wait=True)
        assert taken == [big]

    def test_a_sender_that_nobody_uses_any_more_ends_its_thread(self):
        def send(batch):
            yield len(batch)

        sender = self.sender(send)
        sender.send(events(1), wait=True)
        thread = sender._thread
        del sender
        wait_until(lambda: not thread.is_alive())

    def test_a_broker_that_takes_a_part_fails_only_the_senders_of_the_rest(self):
        """A failure at the last of many messages was the failure of every sender in them."""
        is_free = threading.Event()

        def send(batch):
            is_free.wait()
            for event in batch:
                if event.data == "3":
                    raise OSError("away again")
                yield 1

        sender = self.sender(send)
        sender.send(events(0))
        wait_until(lambda: not sender._queue._jobs)
        with ThreadPoolExecutor(2) as pool:
            taken = pool.submit(sender.send, events(1), wait=True)
            wait_until(lambda: len(sender._queue._jobs) == 1)
            failed = pool.submit(sender.send, events(2, 3), wait=True)
            wait_until(lambda: len(sender._queue._jobs) == 2)
            is_free.set()
            assert taken.result() is None
            with pytest.raises(PublishError, match="away again"):
                failed.result()

    def test_a_client_that_cancels_itself_does_not_end_the_thread(self):
        """No `Exception`: the thread died of it, and nothing was sent any more."""
        failures = [asyncio.CancelledError()]

        def send(batch):
            if failures:
                raise failures.pop()
            yield len(batch)

        sender = self.sender(send)
        with pytest.raises(PublishError, match="CancelledError"):
            sender.send(events(1), wait=True)
        sender.send(events(2), wait=True)

    def test_the_end_of_the_process_ends_a_wait(self):
        """They waited for their timeouts, and the warning never came."""
        is_free = threading.Event()

        def send(batch):
            is_free.wait()
            yield len(batch)

        sender = self.sender(send, timeout=1_000)
        sender.send(events(0))
        wait_until(lambda: not sender._queue._jobs)
        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(sender.send, events(1), wait=True)
            wait_until(lambda: sender._queue._jobs)
            try:
                pool.submit(sender.flush, time.monotonic()).result(HEALTHY)
                with pytest.raises(PublishError, match="the process ended first"):
                    waiting.result(HEALTHY)
            finally:
                is_free.set()
        sender.send(events(2), wait=True)

    def test_a_client_that_cannot_be_made_is_a_failure_like_others(self, caplog):
        def make_send():
            raise ValueError("no such option")

        sender = BackgroundSender("A broker", make_send, 2)
        with pytest.raises(PublishError, match="no such option"):
            sender.send(events(1), wait=True)


@pytest.fixture
def log_on_postgres(postgres_only):
    with postgres_only.as_default():
        yield postgres_only


class TestPostgresFeed:
    def test_it_is_used_where_the_log_is_on_postgresql(self, log_on_postgres):
        assert [type(feed) for feed in backends.make_feeds()] == [PostgresFeed]
        with override_settings(EVENTSTREAM_POSTGRES_NOTIFY=False):
            assert backends.make_feeds() == ()

    def test_it_hears_what_was_committed(self, log_on_postgres):
        async def main():
            async with following(PostgresFeed()) as heard:
                for name in ("a", "b", "a:1", "ü"):
                    await asyncio.to_thread(send, name)
                await until(lambda: len(heard.hints) == 4)
                assert sorted(heard.hints) == [("a", 1), ("a:1", 1), ("b", 1), ("ü", 1)]

        asyncio.run(main())

    def test_a_burst_is_few_hints(self, log_on_postgres):
        async def main():
            async with following(PostgresFeed()) as heard:
                table = table_of(log_on_postgres)
                statement = f"SELECT pg_notify('django_eventstream', '{table}.' || n || ':c')"
                await asyncio.to_thread(
                    log_on_postgres.server.sql,
                    f"{statement} FROM generate_series(1, 5000) AS n",
                    log_on_postgres.settings["NAME"],
                )
                await until(lambda: ("c", 5_000) in heard.hints)
                assert len(heard.hints) < 500

        asyncio.run(main())

    def test_what_it_does_not_understand_makes_it_look(self, log_on_postgres):
        async def main():
            own = table_of(log_on_postgres)
            of_before = ["5:c"]
            strange = ["", "5", "x:c", ":c", "5:", f"{own}.-1:c", f"{own}.²:c", f"{own}.:c"]
            strange += of_before
            async with following(PostgresFeed()) as heard:
                for payload in strange:
                    await asyncio.to_thread(notify, log_on_postgres, payload)
                await asyncio.to_thread(notify, log_on_postgres, f"{own}.3:c")
                await until(lambda: heard.hints)
                assert heard.hints == [("c", 3)]
                assert heard.looks == 1 + len(strange)

        asyncio.run(main())

    def test_notifications_of_another_log_in_the_same_database_are_not_heard(self, log_on_postgres):
        """Schemas of a database share its notifications, and names of channels are the same."""

        async def main():
            own = table_of(log_on_postgres)
            async with following(PostgresFeed()) as heard:
                await asyncio.to_thread(notify, log_on_postgres, f"{own + 1}.7:c")
                await asyncio.to_thread(notify, log_on_postgres, f"{own}.3:c")
                await until(lambda: heard.hints)
                assert heard.hints == [("c", 3)]
                assert heard.looks == 1

        asyncio.run(main())

    def test_it_stops_at_once_and_starts_again(self, log_on_postgres):
        async def main():
            feed = PostgresFeed()
            for n in (1, 2, 3):
                async with following(feed) as heard:
                    assert listening(log_on_postgres) == 1
                    payload = f"{table_of(log_on_postgres)}.{n}:c"
                    await asyncio.to_thread(notify, log_on_postgres, payload)
                    await until(lambda heard=heard: heard.hints)
                await until(lambda: listening(log_on_postgres) == 0, AT_ONCE)

        asyncio.run(main())

    def test_cancelled_while_it_connects_it_leaves_nothing_behind(self, log_on_postgres):
        async def main():
            for turn in range(20):
                task = asyncio.ensure_future(PostgresFeed().follow(Heard()))
                await asyncio.sleep(0.001 * turn)
                task.cancel()
            await until(lambda: listening(log_on_postgres) == 0)
            await until(lambda: len(asyncio.all_tasks()) == 1)

        asyncio.run(main())
        wait_until(lambda: listening(log_on_postgres) == 0)

    def test_while_it_listens_it_needs_no_thread(self, log_on_postgres):
        async def main():
            before = threading.active_count()
            async with following(PostgresFeed()):
                await until(lambda: threading.active_count() == before)

        asyncio.run(main())

    def test_a_server_that_ends_the_connection_is_asked_again(self, log_on_postgres, caplog):
        async def main():
            async with following(PostgresFeed()) as heard:
                await asyncio.to_thread(
                    log_on_postgres.server.sql,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE query LIKE 'LISTEN %'",
                )
                await until(lambda: heard.looks == 2)
                payload = f"{table_of(log_on_postgres)}.1:c"
                await asyncio.to_thread(notify, log_on_postgres, payload)
                await until(lambda: heard.hints)

        asyncio.run(main())
        assert caplog.text.count("does not tell of events now") == 1

    def test_it_comes_back_after_the_server_was_killed(self, django_db_blocker, caplog):
        async def main(server, database):
            async with following(PostgresFeed()) as heard:
                await asyncio.to_thread(server.kill)
                await until(lambda: "does not tell" in caplog.text)
                await asyncio.to_thread(server.start)
                await until(lambda: heard.looks == 2)
                # Without a table nobody can say of which log it is.
                await asyncio.to_thread(notify, database, "5.1:c")
                await until(lambda: heard.looks == 3)

        with Postgres() as server, django_db_blocker.unblock():
            database = replace(server_database(server), alias="postgres-to-kill")
            configure(database)
            with database.as_default():
                asyncio.run(main(server, database))
        assert caplog.text.count("does not tell of events now") == 1

    def test_a_connection_that_is_frozen_is_noticed(self, log_on_postgres, monkeypatch, caplog):
        """Nothing was heard for ever: the server's system goes on to answer keep-alives."""
        monkeypatch.setattr(postgres_feed, "SILENCE_SECONDS", 0.1)
        monkeypatch.setattr(postgres_feed, "ANSWER_SECONDS", 0.3)

        async def main(way):
            async with following(PostgresFeed()) as heard:
                await asyncio.sleep(0.5)  # silence, and several signs of life
                assert heard.looks == 1
                way.freeze(new_ones=False)
                await until(lambda: heard.looks == 2)
                await asyncio.to_thread(notify, log_on_postgres, f"{table_of(log_on_postgres)}.1:c")
                await until(lambda: heard.hints == [("c", 1)])

        with Forwarder(log_on_postgres.server.port) as way, through(way, log_on_postgres):
            asyncio.run(main(way))
        assert caplog.text.count("no sign of life") == 1

    def test_connecting_to_a_frozen_server_has_an_end(self, log_on_postgres, monkeypatch, caplog):
        """It hung for ever, and so did the end of the process."""
        monkeypatch.setattr(postgres_feed, "CONNECT_SECONDS", 0.2)

        async def main(way):
            way.freeze(new_ones=True)
            heard = Heard()
            task = asyncio.ensure_future(PostgresFeed().follow(heard))
            await until(lambda: way.opened == 2)
            assert not heard.looks
            way.thaw()
            await until(lambda: heard.looks)
            # Those that came late were closed.
            await until(lambda: listening(log_on_postgres) == 1)
            task.cancel()

        with Forwarder(log_on_postgres.server.port) as way, through(way, log_on_postgres):
            asyncio.run(main(way))
        assert "no answer within" in caplog.text


ONE = {"POOL_SIZE": 1, "MAX_OVERFLOW": 0, "TIMEOUT": 5}
POOLS = {
    "of Django": {"OPTIONS": {"pool": {"min_size": 1, "max_size": 1, "timeout": 5}}},
    "of SQLAlchemy": {"ENGINE": "dj_db_conn_pool.backends.postgresql", "POOL_OPTIONS": ONE},
}
"""What a project may write into `DATABASES` besides. None has a connection to spare."""


class TestPoolers:
    @pytest.mark.parametrize("pool", POOLS)
    def test_it_listens_whatever_pool_the_project_has(self, pool, log_on_postgres, caplog):
        """The pool gave its last connection, or one that it had never told to commit."""
        with behind(log_on_postgres, **POOLS[pool]), closing_pools():
            asyncio.run(self.hears())
        assert "does not tell" not in caplog.text

    def test_it_listens_through_pgbouncer_in_session_mode(self, postgres_only, pgbouncer, caplog):
        with behind(postgres_only, **pgbouncer.django_settings("session")):
            asyncio.run(self.hears())
        assert "does not tell" not in caplog.text

    async def hears(self):
        async with following(PostgresFeed()) as heard:
            await asyncio.to_thread(send, "c")
            await until(lambda: ("c", 1) in heard.hints)

    def test_pgbouncer_in_transaction_mode_is_said_to_keep_notifications(
        self, postgres_only, pgbouncer, monkeypatch, caplog
    ):
        """It answered LISTEN in a session that was another client's the next moment: silence."""
        monkeypatch.setattr(postgres_feed, "ANSWER_SECONDS", 0.2)

        async def main():
            task = asyncio.ensure_future(PostgresFeed().follow(heard := Heard()))
            await until(lambda: "does not tell" in caplog.text, 30)
            before = pgbouncer.log_text().count("login attempt")
            await until(lambda: pgbouncer.log_text().count("login attempt") > before + 1, 30)
            task.cancel()
            assert not heard.looks

        with behind(postgres_only, **pgbouncer.django_settings("transaction")):
            asyncio.run(main())
        [warning] = [text for text in caplog.messages if "does not tell" in text]
        assert "PgBouncer" in warning
        assert "DATABASES['default']" in warning
        assert "EVENTSTREAM_POSTGRES_NOTIFY" in warning


@contextmanager
def closing_pools():
    try:
        yield
    finally:
        connections.close_all()
        if (close_pool := getattr(connections["default"], "close_pool", None)) is not None:
            close_pool()
        pool_container.dispose()
        pool_container.clear()


@contextmanager
def through(way: Forwarder, database):
    """Makes the default database one that is reached on another way."""
    with behind(database, PORT=str(way.port)):
        yield


@contextmanager
def behind(database, **changes):
    """Makes the default database one with other settings."""
    other = replace(database, alias="behind", settings={**database.settings, **changes})
    configure(other)
    with other.as_default():
        yield


def configure(database) -> None:
    """Makes a database known to Django, without any table."""
    complete = connections.configure_settings({"default": {}, database.alias: database.copy()})
    connections.settings[database.alias] = complete[database.alias]


def send(channel: str) -> None:
    try:
        send_event(channel, "message", {})
    finally:
        connections.close_all()


def table_of(database) -> int:
    """What notifications of the log begin with."""
    table = "'django_eventstream_eventcounter'::regclass::oid"
    return int(database.server.sql(f"SELECT {table}", database.settings["NAME"]))


def notify(database, payload: str) -> None:
    parameters = database.settings
    with psycopg.connect(
        host=parameters["HOST"],
        port=parameters["PORT"],
        user=parameters["USER"],
        dbname=parameters["NAME"],
        autocommit=True,
    ) as connection:
        connection.execute("SELECT pg_notify('django_eventstream', %s)", [payload])
