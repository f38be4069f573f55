"""Events for other processes, through a channel layer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

from django_eventstream.conf import settings
from django_eventstream.events import Event
from django_eventstream.publishers.background import BackgroundSender, Send
from django_eventstream.publishers.base import Publisher
from django_eventstream.publishers.layer import GROUP, is_in_memory, make_layer
from django_eventstream.publishers.messages import Packer, count_events


class ChannelsPublisher(Publisher):
    """Tells every process that holds streams, with one message for many events."""

    def __init__(self) -> None:
        self._sender: BackgroundSender | None = None
        alias = settings.CHANNEL_LAYER
        if alias is not None and not is_in_memory(alias):
            timeout = settings.PUBLISH_TIMEOUT
            make_send = partial(_make_send, alias, timeout)
            self._sender = BackgroundSender("The channel layer", make_send, timeout)

    def publish(self, events: Sequence[Event], *, wait: bool = False) -> None:
        """See `Publisher.publish()`."""
        if self._sender is not None:
            self._sender.send(events, wait=wait)


def _make_send(alias: str, timeout: float) -> Send:
    layer = make_layer(alias)
    packer = Packer()

    async def send(events: Sequence[Event]) -> AsyncIterator[int]:
        for message in packer.pack(events):
            await asyncio.wait_for(layer.group_send(GROUP, message), timeout)
            yield count_events(message)

    return send
