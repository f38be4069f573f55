"""Channel layers on a Redis of the tests, and what Redis knows about them."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

from django_eventstream.publishers.layer import GROUP
from tests.services.deadline import HEALTHY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.databases import Database
    from tests.services.redis import Redis

LAYERS = {
    "core": "channels_redis.core.RedisChannelLayer",
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}


def layer_on(layer: str, url: str) -> dict[str, Any]:
    """`CHANNEL_LAYERS`, with one of `LAYERS` as the default."""
    return {"default": {"BACKEND": LAYERS[layer], "CONFIG": {"hosts": [url]}}}


def members(redis: Redis, layer: str) -> int:
    """How many members our group has."""
    if layer == "core":
        return int(redis.command(f"ZCARD asgi:group:{GROUP}")[1:].strip() or -1)
    answer = redis.command(f"PUBSUB NUMSUB asgi__group__{GROUP}")
    return int(answer.rpartition(b":")[2].strip() or -1)


class Monitor:
    """Sees every command that Redis gets from here on."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.connection = socket.create_connection(("127.0.0.1", redis.port), timeout=HEALTHY)
        self.connection.sendall(b"MONITOR\r\n")
        self.lines = self.connection.makefile(errors="replace")
        assert self.lines.readline().startswith("+OK")

    def commands(self) -> Iterator[str]:
        """All commands up to now; ends the monitor."""
        self.redis.command("ECHO all-of-them")
        with closing(self.connection), self.lines:
            while "all-of-them" not in (line := self.lines.readline()):
                yield line

    def deliveries(self) -> int:
        """How many times a message was put into the queue of a process, or published to all."""
        return sum(
            ("lua]" in line and '"ZADD"' in line) or '"PUBLISH"' in line for line in self.commands()
        )


def listening(database: Database) -> int:
    """How many connections to a PostgreSQL database LISTEN."""
    return int(
        database.server.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'"
            f" AND datname = '{database.settings['NAME']}'"
        )
    )
