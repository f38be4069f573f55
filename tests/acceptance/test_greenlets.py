"""Senders whose threads are greenlets: gunicorn's gevent worker, and the pools of Celery."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model

from tests.acceptance.test_several_processes import NO_POLL, clients_of
from tests.layers import layer_on
from tests.services.celery import LAST_WORDS, CeleryWorker
from tests.services.deadline import wait_until
from tests.services.forwarder import Forwarder
from tests.services.ports import free_port
from tests.sse_client import numbered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.databases import Database
    from tests.services.pushpin import Pushpin
    from tests.services.servers import AppServer

EVENTS = 50
"""And as many pages or tasks that only use the database."""

ANNOUNCED_ONLY = {**NO_POLL, "EVENTSTREAM_POSTGRES_NOTIFY": False}
"""What arrives came through the broker."""

LOOP_IN_A_GREENLET = "SynchronousOnlyOperation"


def settings_for(broker: str, port: int) -> dict[str, Any]:
    """Redis itself, whose client blocks, or a channel layer, whose client needs an event loop."""
    if broker == "redis":
        way = {"EVENTSTREAM_REDIS": {"host": "127.0.0.1", "port": port}}
    else:
        way = {"CHANNEL_LAYERS": layer_on(broker, f"redis://127.0.0.1:{port}/0")}
    return {**ANNOUNCED_ONLY, **way}


@contextmanager
def reader_gets_all(server: AppServer | Pushpin, channel: str) -> Iterator[None]:
    """A stream of `server` gets 1 to `EVENTS`, each once and in order, of what is sent here."""
    with clients_of([server], channel, each=1) as (client,):
        yield
        client.wait_for(EVENTS, 60)
        assert client.ids(channel) == list(range(1, EVENTS + 1))
        assert sorted(client.numbers(channel)) == list(range(EVENTS))


def users_of(database: Database) -> int:
    return get_user_model().objects.using(database.alias).count()


def ask_for_pages(server: AppServer, channel: str) -> None:
    """Many at a time that send, and as many that do not."""

    def ask(number: int) -> None:
        server.send(*numbered(channel, [number]))
        server.request(f"/login/user-{number}/", timeout=60)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(EVENTS)))


@pytest.mark.parametrize("broker", ["redis", "core"])
def test_pages_that_send_and_pages_that_do_not_run_side_by_side_in_gevent(
    broker, app_server, postgres_only, redis_server, unique_channel
):
    """57 of 100 pages that had nothing to do with events failed."""
    settings = settings_for(broker, redis_server.port)
    reader = app_server(postgres_only, settings=settings)
    server = app_server(postgres_only, "gunicorn-gevent", settings=settings)
    with reader_gets_all(reader, unique_channel):
        ask_for_pages(server, unique_channel)
    assert users_of(postgres_only) == EVENTS
    assert LOOP_IN_A_GREENLET not in server.log_text()


def test_a_worker_of_gevent_publishes_to_a_proxy(
    app_server, pushpin, postgres_only, unique_channel
):
    port = free_port()
    proxy = pushpin(port)
    settings = {"GRIP_URL": proxy.grip_url}
    server = app_server(postgres_only, "gunicorn-gevent", port=port, settings=settings)
    with reader_gets_all(proxy, unique_channel):
        ask_for_pages(server, unique_channel)
    assert users_of(postgres_only) == EVENTS


@pytest.mark.parametrize(("pool", "broker"), [("gevent", "pubsub"), ("eventlet", "core")])
def test_tasks_that_send_and_tasks_that_do_not_run_side_by_side_in_greenlets(
    pool, broker, app_server, running, postgres_only, redis_server, unique_channel
):
    """83 of 100 tasks failed: in one greenlet an event loop ran, for asyncio in each of them."""
    settings = settings_for(broker, redis_server.port)
    reader = app_server(postgres_only, settings=settings)
    worker = running(CeleryWorker(pool, redis_server, postgres_only, settings))
    with reader_gets_all(reader, unique_channel):
        for number in range(EVENTS):
            worker.ask("send", unique_channel, number)
            worker.ask("make_user", f"user-{number}")
    wait_until(lambda: users_of(postgres_only) == EVENTS, 60, worker.log_text)
    assert LOOP_IN_A_GREENLET not in worker.log_text()


def test_a_process_of_celerys_prefork_pool_sends_the_rest_before_it_ends(
    app_server, running, postgres_only, redis_server, unique_channel
):
    """It leaves by `os._exit()`: `flush()` is called by the project, as the guide says."""
    reader = app_server(postgres_only, settings=settings_for("redis", redis_server.port))
    with (
        Forwarder(redis_server.port) as way,
        clients_of([reader], unique_channel, each=1) as (client,),
    ):
        way.freeze(new_ones=True)
        settings = {**settings_for("redis", way.port), "EVENTSTREAM_PUBLISH_TIMEOUT": 30}
        worker = running(
            CeleryWorker("prefork", redis_server, postgres_only, settings, concurrency=1)
        )
        worker.ask("send", unique_channel, 1)
        wait_until(lambda: " succeeded in " in worker.log_text(), 60, worker.log_text)
        worker.ask_to_end()
        wait_until(lambda: LAST_WORDS in worker.log_text(), 60, worker.log_text)
        way.thaw()
        client.wait_for(1, 60)
