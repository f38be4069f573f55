"""Holding a stream on a bare ASGI connection, once its request is gone."""

from __future__ import annotations

from collections.abc import Awaitable

from django_eventstream.hold import Hold
from django_eventstream.hub.connection import Connection
from django_eventstream.hub.current import get_hub
from django_eventstream.hub.hub import Hub
from django_eventstream.hub.listener import Listener, Message, Receive
from django_eventstream.hub.pump import Pump, Send

__all__ = ["Message", "Receive", "Send", "hold_stream"]


def hold_stream(hold: Hold, receive: Receive, send: Send) -> Awaitable[None]:
    """Send the stream, whose response has begun, until the client leaves or the stream ends.

    Await the result at once. The caller may forget the hold: there can be much behind it.
    """
    hub = get_hub()
    pump = Pump(send)
    pump.connection = hub.join(hold, pump)
    return _until_it_ends(hub, pump.connection, pump, receive, send)


async def _until_it_ends(
    hub: Hub, connection: Connection, pump: Pump, receive: Receive, send: Send
) -> None:
    listener = Listener(receive, pump.end)
    try:
        error = await pump.ended
    finally:
        hub.leave(connection)
        pump.stop()
        listener.stop()
    if error is None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    elif not isinstance(error, OSError):
        # An OSError is how a server says that the client has left (ASGI 2.4).
        raise error
