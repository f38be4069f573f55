"""Events for other processes, through a channel layer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from django_eventstream.conf import settings
from django_eventstream.events import Event
from django_eventstream.publishers.background import BackgroundSender, Send
from django_eventstream.publishers.base import Publisher
from django_eventstream.publishers.layer import GROUP, is_in_memory, make_layer
from django_eventstream.publishers.messages import Packer, count_events
from django_eventstream.threads import native_thread


class ChannelsPublisher(Publisher):
    """Tells every process that holds streams, with one message for many events."""

    def __init__(self) -> None:
        self._sender: BackgroundSender | None = None
        alias = settings.CHANNEL_LAYER
        if alias is not None and not is_in_memory(alias):
            timeout = settings.PUBLISH_TIMEOUT
            make_send = partial(_sending, alias, timeout)
            self._sender = BackgroundSender("The channel layer", make_send, timeout)

    def publish(self, events: Sequence[Event], *, wait: bool = False) -> None:
        """See `Publisher.publish()`."""
        if self._sender is not None:
            self._sender.send(events, wait=wait)


@contextmanager
def _sending(alias: str, timeout: float) -> Iterator[Send]:
    """Send through a layer of our own, in an event loop that runs for each message in turn."""
    packer = Packer()
    with native_thread() as call:
        loop = call(_Loop)
        try:
            layer = call(partial(make_layer, alias))

            def send(events: Sequence[Event]) -> Iterator[int]:
                for message in packer.pack(events):
                    call(partial(loop.run_until_complete, _send_one(layer, message, timeout)))
                    yield count_events(message)

            yield send
        finally:
            call(loop.close)


async def _send_one(layer: Any, message: dict[str, Any], timeout: float) -> None:
    await asyncio.wait_for(layer.group_send(GROUP, message), timeout)


class _Loop(asyncio.SelectorEventLoop):
    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Ask for addresses in this thread, which has nothing else to do.

        asyncio would ask in another one, which Python does not start any more once it ends.
        """
        return socket.getaddrinfo(host, port, **options)
