"""The wrapper lane: Django is asked once for each stream, and then let go.

    # mysite/asgi.py
    from django.core.asgi import get_asgi_application
    from django_eventstream.asgi import EventStreamApplication

    application = EventStreamApplication(get_asgi_application())

All middleware, the view and the channel manager see the request as always. If the answer is a
stream, the request ends there, with its thread and its database connections, and the wrapper
holds the stream itself. Everything else passes through untouched.

A middleware that made the answer its own is respected: what it made is sent, and the log says why
the wrapper does not hold the stream. Wrapped chunks are streamed as they are without a wrapper.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
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
        answer = _Answer(receive, send)
        extensions = {**(scope.get("extensions") or {}), EXTENSION: answer.offer}
        await self._application({**scope, "extensions": extensions}, answer.receive, answer.send)
        if answer.hold is not None and not answer.is_client_gone:
            await send(_without_length(answer.start))
            await hold_stream(answer.hold, receive, send)


class _Answer:
    """Passes Django's answer on, unless it is the one that stands for a stream to be held."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.offer = Offer()
        self.start: Message = {}
        self.hold: Hold | None = None
        """What to hold, once the whole answer has been seen, and is as the view made it."""
        self.is_client_gone = False
        """Servers say so only once, and Django may be the one who hears it."""
        self._receive = receive
        self._send = send
        self._is_passing = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.is_client_gone = self.is_client_gone or message["type"] == "http.disconnect"
        return message

    async def send(self, message: Message) -> None:
        if self._is_passing or self.offer.hold is None:
            await self._send(message)
        elif not self.start and message["type"] == "http.response.start":
            self.start = message
        elif obstacle := self._obstacle(message):
            logger.warning("The wrapper does not hold a stream: %s", obstacle)
            self._is_passing = True
            await self._send(self.start)
            await self._send(message)
        else:
            self.hold = self.offer.hold

    def _obstacle(self, message: Message) -> str:
        is_empty = not message.get("body") and not message.get("more_body")
        return (
            self.offer.obstacle
            or _obstacle_in(self.start)
            or ("" if is_empty else "it has got a body")
        )


def _obstacle_in(start: Message) -> str:
    """Say what the head of an answer has that no stream of ours has."""
    headers = {name.lower(): value.decode("latin-1") for name, value in start["headers"]}
    if start["status"] != HTTPStatus.OK:
        return f"it has status {start['status']}"
    if encoding := headers.get(b"content-encoding"):
        return f"it has Content-Encoding {encoding}"
    kind = headers.get(b"content-type", "")
    return "" if kind.startswith(sse.CONTENT_TYPE) else f"it has Content-Type {kind}"


def _without_length(start: Message) -> Message:
    lasting = [header for header in start["headers"] if header[0].lower() != b"content-length"]
    return {**start, "headers": lasting}
