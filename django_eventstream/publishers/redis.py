"""Events for other processes, through Redis."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from functools import partial

from django_eventstream.backends import get_storage
from django_eventstream.conf import settings
from django_eventstream.events import Event
from django_eventstream.publishers.background import BackgroundSender, Send
from django_eventstream.publishers.base import Publisher
from django_eventstream.publishers.messages import count_events, pack
from django_eventstream.redis_server import RedisServer
from django_eventstream.storage.redis import RedisStorage


def find_server() -> RedisServer:
    """Return where processes tell each other of events: the log's own Redis goes first."""
    storage = get_storage()
    return (
        storage.server if isinstance(storage, RedisStorage) else RedisServer.from_settings("REDIS")
    )


class RedisPublisher(Publisher):
    """Tells every process that holds streams, with one message for many events."""

    def __init__(self) -> None:
        self._tells_of_stored = not isinstance(get_storage(), RedisStorage)
        """Where the log is in Redis, it has told of them already."""
        server, timeout = find_server(), settings.PUBLISH_TIMEOUT
        self._sender = BackgroundSender("Redis", partial(_make_send, server), timeout)

    def publish(self, events: Sequence[Event], *, wait: bool = False) -> None:
        """See `Publisher.publish()`."""
        told = [event for event in events if self._tells_of_stored or event.id is None]
        if told:
            self._sender.send(told, wait=wait)


def _make_send(server: RedisServer) -> Send:
    client = server.make_client()

    async def send(events: Sequence[Event]) -> AsyncIterator[int]:
        # It blocks, in a thread that has nothing else to do.
        for message in pack(events):
            client.publish(server.news_channel, json.dumps(message, separators=(",", ":")))
            yield count_events(message)

    return send
