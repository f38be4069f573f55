"""Holding a stream on a bare ASGI connection, once its request is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from django_eventstream.hold import Hold
from django_eventstream.hub.connection import Connection
from django_eventstream.hub.courier import Courier
from django_eventstream.hub.current import get_hub
from django_eventstream.hub.hub import Hub
from django_eventstream.hub.listener import Listener, Message, Receive
from django_eventstream.hub.pump import Pump, Send
from django_eventstream.hub.servers import is_servers_own

__all__ = ["Message", "Receive", "Send", "hold_stream"]


END_SECONDS = 1.0
"""How long what others put around a server may take to end when it is cancelled."""


def hold_stream(hold: Hold, receive: Receive, send: Send) -> Awaitable[None]:
    """Send the stream, whose response has begun, until the client leaves or the stream ends.

    `receive()` is stepped by hand: see `Listener`. Await the result at once. The caller may forget
    the hold: there can be much behind it.
    """
    hub = get_hub()
    outlet = Pump(send) if is_servers_own(send) else Courier(send)
    outlet.connection = hub.join(hold, outlet)
    return _until_it_ends(hub, outlet.connection, outlet, receive)


async def _until_it_ends(
    hub: Hub, connection: Connection, outlet: Pump | Courier, receive: Receive
) -> None:
    listener = Listener(receive, outlet.end)
    try:
        error = await outlet.ended
    finally:
        hub.leave(connection)
        ending = {task for task in (outlet.stop(), listener.stop()) if task is not None}
        if ending:
            # Nothing of a connection outlives it, as under Django's handler.
            await asyncio.wait(ending, timeout=END_SECONDS)
    if error is None:
        await outlet.finish()
    elif not isinstance(error, OSError):
        # An OSError is how a server says that the client has left (ASGI 2.4).
        raise error
