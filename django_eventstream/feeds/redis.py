"""Events of other processes, through Redis."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from django_eventstream.conf import settings
from django_eventstream.feeds.base import Listener
from django_eventstream.feeds.broker import BrokerFeed
from django_eventstream.feeds.hearing import Hearing
from django_eventstream.publishers.redis import find_server
from django_eventstream.storage.announcements import understand

SILENCE_SECONDS = 10.0
"""After so much of it Redis is asked whether it is still there: a server that vanishes says
nothing."""


class RedisFeed(BrokerFeed):
    """Subscribes once for all streams of its event loop; to a log in Redis as well."""

    name = "Redis"

    def __init__(self) -> None:
        self._server = find_server()
        self._timeout: float = settings.PUBLISH_TIMEOUT
        self._hearing = Hearing()

    async def listen(self, listener: Listener, connected: Callable[[], None]) -> None:
        """See `BrokerFeed.listen()`."""
        client = self._server.make_async_client()
        async with aclosing(client), aclosing(client.pubsub()) as subscription:
            await subscription.subscribe(self._server.news_channel)
            is_silent = False
            while True:
                seconds = self._timeout if is_silent else SILENCE_SECONDS
                message = await subscription.get_message(timeout=seconds)
                if message is None:
                    if is_silent:
                        raise TimeoutError("no sign of life")
                    await subscription.ping()
                    is_silent = True
                    continue
                is_silent = False
                if message["type"] == "subscribe":
                    connected()
                elif message["type"] == "message":
                    self._hear(message["data"], listener)

    def _hear(self, text: str, listener: Listener) -> None:
        if text.startswith("{"):
            self._hearing.hear(_as_json(text), listener)
            return
        try:
            news = understand(text)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            news = None
        if news is None:
            listener.look()
        else:
            self._hearing.tell(news, listener)


def _as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}
