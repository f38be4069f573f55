"""Events for other processes, through Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
        self._sender = BackgroundSender("Redis", partial(_sending, server), timeout)

    def publish(self, events: Sequence[Event], *, wait: bool = False) -> None:
        """See `Publisher.publish()`. A log in Redis may have told of stored events already."""
        is_told = self._log is not None and self._log.is_announcing
        untold = [event for event in events if event.id is None or not is_told]
        if untold:
            self._sender.send(untold, wait=wait)


@contextmanager
def _sending(server: RedisServer) -> Iterator[Send]:
    packer = Packer()
    with server.make_client() as client:

        def send(events: Sequence[Event]) -> Iterator[int]:
            for message in packer.pack(events):
                client.publish(server.news_channel, json.dumps(message, separators=(",", ":")))
                yield count_events(message)

        yield send
