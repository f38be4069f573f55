"""Holding a stream on a bare ASGI connection, once its request is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from django_eventstream.hold import Hold
from django_eventstream.hub.current import get_hub
from django_eventstream.hub.pump import Message, Pump, Send

__all__ = ["Message", "Receive", "Send", "hold_stream"]

Receive = Callable[[], Awaitable[Message]]


async def hold_stream(hold: Hold, receive: Receive, send: Send) -> None:
    """Send the stream, whose response has begun, until the client leaves or the stream ends."""
    hub = get_hub()
    pump = Pump(send)
    pump.connection = connection = hub.join(hold, pump)
    leaving = asyncio.ensure_future(_until_gone(receive))
    leaving.add_done_callback(lambda done: pump.end(_why_gone(done)))
    try:
        error = await pump.ended
    finally:
        hub.leave(connection)
        pump.stop()
        leaving.cancel()
    if error is None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    elif not isinstance(error, OSError):
        # An OSError is how a server says that the client has left (ASGI 2.4).
        raise error


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _why_gone(leaving: asyncio.Task[None]) -> BaseException:
    error = None if leaving.cancelled() else leaving.exception()
    return error or ConnectionResetError("the client has left")
