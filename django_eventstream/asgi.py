"""The wrapper lane: Django is asked once for each stream, and then let go.

    # mysite/asgi.py
    from django.core.asgi import get_asgi_application
    from django_eventstream.asgi import EventStreamApplication

    application = EventStreamApplication(get_asgi_application())

All middleware, the view and the channel manager see the request as always. If the answer is a
stream, the request ends there, with its thread and its database connections, and the wrapper
holds the stream itself. Everything else passes through untouched.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django_eventstream import sse
from django_eventstream.hold import EXTENSION, Hold, Offer
from django_eventstream.hub.holder import Message, Receive, Send, hold_stream

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class EventStreamApplication:
    """Wraps an ASGI application of Django's: it holds the streams that the views decide on."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, of any kind."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        answer = _Answer(send)
        extensions = {**(scope.get("extensions") or {}), EXTENSION: answer.offer}
        await self._application({**scope, "extensions": extensions}, receive, answer.send)
        if answer.hold is not None:
            await send(_without_length(answer.start))
            await hold_stream(answer.hold, receive, send)


class _Answer:
    """Passes Django's answer on, unless it is the one that stands for a stream to be held."""

    def __init__(self, send: Send) -> None:
        self.offer = Offer()
        self.start: Message = {}
        self.hold: Hold | None = None
        """What to hold, once the whole answer has been seen, and is as the view made it."""
        self._send = send
        self._is_passing = False

    async def send(self, message: Message) -> None:
        if self._is_passing or self.offer.hold is None:
            await self._send(message)
        elif message["type"] == "http.response.start" and _is_stream(message):
            self.start = message
        elif self.start and not message.get("body") and not message.get("more_body"):
            self.hold = self.offer.hold
        else:
            self._is_passing = True
            logger.warning("A stream is not held: middleware replaced or changed the answer")
            if self.start:
                await self._send(self.start)
            await self._send(message)


def _is_stream(start: Message) -> bool:
    headers = {name.lower(): value for name, value in start["headers"]}
    is_plain = b"content-encoding" not in headers
    kind = headers.get(b"content-type", b"")
    return start["status"] == 200 and is_plain and kind.startswith(sse.CONTENT_TYPE.encode())


def _without_length(start: Message) -> Message:
    lasting = [header for header in start["headers"] if header[0].lower() != b"content-length"]
    return {**start, "headers": lasting}
