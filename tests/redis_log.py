"""A log in a Redis of the tests, and what nobody but a test does to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis as redis_client

from django_eventstream.redis_server import RedisServer
from django_eventstream.storage.redis import RedisStorage

if TYPE_CHECKING:
    from datetime import timedelta

    from tests.services.redis import Redis

PREFIX = "eventstream"


def redis_log(redis: Redis, **options: Any) -> RedisStorage:
    """A log of its own, as another process would have it."""
    return RedisStorage(
        RedisServer("STORAGE_CONNECTION", connection_to(redis, **options), PREFIX, 3)
    )


def connection_to(redis: Redis, **options: Any) -> dict[str, Any]:
    """What a project writes into its settings."""
    return {"host": "127.0.0.1", "port": redis.port, **options}


def settings_of(connection: dict[str, Any]) -> dict[str, Any]:
    """The settings of a project whose log is in Redis."""
    return {
        "EVENTSTREAM_STORAGE_CLASS": "django_eventstream.storage.RedisStorage",
        "EVENTSTREAM_STORAGE_CONNECTION": connection,
    }


@contextmanager
def client_of(log: RedisStorage) -> Iterator[redis_client.Redis]:
    with log.server.make_client() as client:
        yield client


def stream_of(channel: str) -> str:
    return f"{PREFIX}:log:{channel}"


def age_stream(log: RedisStorage, channel: str, up_to: int, ago: timedelta) -> None:
    """Makes the stream anew, with the events up to an id as old as that."""
    with client_of(log) as client:
        entries = client.xrange(stream_of(channel))
        client.delete(stream_of(channel))
        for stream_id, fields in entries:
            number, stored = map(int, stream_id.split("-"))
            if number <= up_to:
                stored -= int(ago.total_seconds() * 1000)
            client.xadd(stream_of(channel), fields, id=f"{number}-{stored}")


def delete_entry(log: RedisStorage, channel: str, event_id: int) -> None:
    with client_of(log) as client:
        [(stream_id, _)] = client.xrange(stream_of(channel), event_id, event_id)
        assert client.xdel(stream_of(channel), stream_id) == 1


def replace_entry(log: RedisStorage, channel: str, event_id: int, text: str | bytes) -> None:
    """Makes the stream anew, with another text for one event."""
    with client_of(log) as client:
        entries = client.xrange(stream_of(channel))
        client.delete(stream_of(channel))
        for stream_id, fields in entries:
            is_meant = stream_id.startswith(f"{event_id}-")
            client.xadd(stream_of(channel), {"e": text} if is_meant else fields, id=stream_id)
