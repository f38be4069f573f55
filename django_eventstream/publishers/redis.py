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
from django_eventstream.publishers.messages import Packer, count_events
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
        storage = get_storage()
        self._log = storage if isinstance(storage, RedisStorage) else None
        server, timeout = find_server(), settings.PUBLISH_TIMEOUT
        self._sender = BackgroundSender("Redis", partial(_make_send, server), timeout)

    def publish(self, events: Sequence[Event], *, wait: bool = False) -> None:
        """See `Publisher.publish()`. A log in Redis may have told of stored events already."""
        is_told = self._log is not None and self._log.is_announcing
        untold = [event for event in events if event.id is None or not is_told]
        if untold:
            self._sender.send(untold, wait=wait)


def _make_send(server: RedisServer) -> Send:
    client = server.make_client()
    packer = Packer()

    async def send(events: Sequence[Event]) -> AsyncIterator[int]:
        # It blocks, in a thread that has nothing else to do.
        for message in packer.pack(events):
            client.publish(server.news_channel, json.dumps(message, separators=(",", ":")))
            yield count_events(message)

    return send
