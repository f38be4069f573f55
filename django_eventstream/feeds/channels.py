"""Events of other processes, through a channel layer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django_eventstream.conf import settings
from django_eventstream.deadlines import within
from django_eventstream.feeds.base import Listener
from django_eventstream.feeds.broker import BrokerFeed
from django_eventstream.feeds.hearing import Hearing
from django_eventstream.publishers.layer import GROUP, is_in_memory, make_layer

REJOIN_SECONDS = 5.0
"""A member of a group expires after a day with channels_redis, and at once when Redis restarts
without its data, which the client may not even notice: it connects again by itself."""

LEAVE_SECONDS = 1.0


class ChannelsFeed(BrokerFeed):
    """Is in the group once for all streams of its event loop."""

    name = "The channel layer"

    def __init__(self) -> None:
        self._alias: str = settings.CHANNEL_LAYER or ""
        self._timeout = settings.PUBLISH_TIMEOUT
        self._layer: Any = None
        self._hearing = Hearing()

    async def follow(self, listener: Listener) -> None:
        """See `Feed.follow()`."""
        if is_in_memory(self._alias):
            # There are no other processes, and the local publisher tells of this one.
            await asyncio.get_running_loop().create_future()
        await super().follow(listener)

    async def listen(self, listener: Listener, connected: Callable[[], None]) -> None:
        """See `BrokerFeed.listen()`."""
        layer = self._layer = self._layer or make_layer(self._alias)
        channel = await within(layer.new_channel("eventstream"), self._timeout)
        await self._join(layer, channel)
        connected()
        tasks = [
            asyncio.ensure_future(self._receive(layer, channel, listener)),
            asyncio.ensure_future(self._stay(layer, channel)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=LEAVE_SECONDS)
            with suppress(Exception):  # A layer that is gone needs no goodbye.
                await within(layer.group_discard(GROUP, channel), LEAVE_SECONDS)

    async def _join(self, layer: Any, channel: str) -> None:
        await within(layer.group_add(GROUP, channel), self._timeout)

    async def _stay(self, layer: Any, channel: str) -> None:
        while True:
            await asyncio.sleep(REJOIN_SECONDS * random.uniform(0.5, 1))
            await self._join(layer, channel)

    async def _receive(self, layer: Any, channel: str, listener: Listener) -> None:
        while True:
            # No timeout: channels_redis may lose a message when this is cancelled.
            message = await layer.receive(channel)
            self._hearing.hear(message, listener)
