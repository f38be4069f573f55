"""Holding a stream on a bare ASGI connection, once its request is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django_eventstream.hold import Hold
from django_eventstream.hub.current import get_hub
from django_eventstream.hub.pump import Pump

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def hold_stream(hold: Hold, receive: Receive, send: Send) -> None:
    """Send the stream, whose response has begun, until the client leaves or the stream ends."""
    task = asyncio.current_task()
    assert task is not None, "ASGI servers run applications in tasks"
    hub = get_hub()
    pump = Pump(hub.pump_room, send, task)
    pump.connection = connection = hub.join(hold, pump.wake)
    leaving = asyncio.ensure_future(_until_gone(receive))
    try:
        either: set[asyncio.Future[Any]] = {leaving, pump.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not leaving.done():
            error = await pump.ended
            if error is None:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            elif not isinstance(error, OSError):
                # An OSError is how a server says that the client has left (ASGI 2.4).
                raise error
        else:
            leaving.result()
    finally:
        hub.leave(connection)
        pump.stop()
        leaving.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
