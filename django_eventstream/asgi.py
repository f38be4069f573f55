"""The wrapper lane: Django is asked once for each stream, and then let go.

    # mysite/asgi.py
    from django.core.asgi import get_asgi_application
    from django_eventstream.asgi import EventStreamApplication

    application = EventStreamApplication(get_asgi_application())

All middleware, the view and the channel manager see the request as always. If the answer is a
stream, the request ends there, with its thread and its database connections, and the wrapper
holds the stream itself. Everything else passes through untouched.

When everybody comes back at once, a bounded number of requests asks Django at a time, each of them
complete and for a bounded time, and a client with a ticket, if the channel manager gives any, is
taken back without asking.

A middleware that made the answer its own is respected: what it made is sent, and the log says why
the wrapper does not hold the stream. Wrapped chunks are streamed as they are without a wrapper.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any

from django.core.handlers.asgi import ASGIHandler

from django_eventstream import sse
from django_eventstream.conf import settings
from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.hold import EXTENSION, Hold, Offer
from django_eventstream.hub.admission import retry_milliseconds
from django_eventstream.hub.current import get_hub
from django_eventstream.hub.holder import Message, Receive, Send, hold_stream
from django_eventstream.hub.revocations import ControlMark
from django_eventstream.web.asking import Route, Routes, Scope, asks_for_stream
from django_eventstream.web.handler import OneThreadHandler
from django_eventstream.web.refusals import send_back, send_refusal
from django_eventstream.web.responses import NO_ENCODING
from django_eventstream.web.tickets import Tickets
from django_eventstream.web.turnstile import (
    MOST_INSIDE,
    Incoming,
    RequestRefusedError,
    Turnstile,
)

logger = logging.getLogger(__name__)

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
_Stream = tuple[Hold, Receive]


class EventStreamApplication:
    """Wraps an ASGI application of Django's: it holds the streams that the views decide on.

    Make it after `get_asgi_application()`, in the module that the server loads.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._turnstile = Turnstile(settings.REQUEST_LIMIT)
        # Views that are not known to answer with streams: those that take long hold up no stream.
        self._strangers = Turnstile(settings.REQUEST_LIMIT)
        self._routes = Routes()
        self._tickets = Tickets(_control_mark)
        self._handler: OneThreadHandler | None = None
        if type(application) is ASGIHandler:
            # What is wrapped or subclassed may do more than Django does, and is left as it is.
            self._handler = OneThreadHandler(settings.REQUEST_LIMIT * MOST_INSIDE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, of any kind."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
        elif not asks_for_stream(scope):
            await _hold(await self._ask(self._application, scope, Incoming(receive), send), send)
        elif not await self._take_back(scope, Incoming(receive).rest(), send):
            await _hold(await self._ask_in_turn(scope, Incoming(receive), send), send)

    async def _ask_in_turn(self, scope: Scope, incoming: Incoming, send: Send) -> _Stream | None:
        """Ask Django when there is a place, unless the request is for somebody else's stream."""
        route = self._routes.find(scope)
        if route.is_ours is False:
            return await self._ask(self._application, scope, incoming, send, route.learn)
        stream = None
        try:
            await incoming.complete()
            if not incoming.is_gone:
                stream = await self._ask_at_a_place(route, scope, incoming, send)
        except RequestRefusedError as error:
            if route.is_ours:
                await send_refusal(scope, error.status, send)
            else:
                # It may be no request for a stream, and passes as it is.
                stream = await self._ask(self._application, scope, incoming, send, route.learn)
        finally:
            if stream is None:
                await incoming.close()
        return stream

    async def _ask_at_a_place(
        self, route: Route, scope: Scope, incoming: Incoming, send: Send
    ) -> _Stream | None:
        """Ask Django at a place, which is left as soon as it has answered."""
        place = await (self._turnstile if route.is_ours else self._strangers).enter(incoming)
        if place is None:
            if not incoming.is_gone:
                await send_back(scope, send)
            return None

        def answered(has_streamed: bool) -> None:
            place.leave()
            route.learn(has_streamed)

        # A view that has not answered when its client leaves may never do.
        incoming.on_leaving = partial(route.learn, False)
        application: Any = self._application
        if route.is_ours and self._handler is not None and self._handler.may_answer(route.view):
            application = self._handler
        try:
            # While it waited, others may have shown what Django answers.
            if await self._take_back(scope, incoming.rest(), send, place.leave):
                return None
            return await self._ask(application, scope, incoming, send, answered)
        finally:
            place.leave()

    async def _ask(
        self,
        application: Application,
        scope: Scope,
        incoming: Incoming,
        send: Send,
        answered: Callable[[bool], None] = lambda has_streamed: None,
    ) -> _Stream | None:
        """Ask Django; return what is to be held.

        `answered` is called when it begins to send an answer of its own, or is done with a request
        whose stream is to be held: by then it has closed its database connections.
        """
        answer = _Answer(send, answered)
        extensions = {**(scope.get("extensions") or {}), EXTENSION: answer.offer}
        await application({**scope, "extensions": extensions}, incoming.receive, answer.send)
        if answer.hold is not None:
            answered(True)
        if answer.hold is None or incoming.is_gone:
            return None
        start = _without_length(answer.start)
        hold = replace(answer.hold, stamp=self._tickets.stamp_for(scope, start, answer.hold))
        await send(start)
        return hold, incoming.rest()

    async def _take_back(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        taken: Callable[[], None] = lambda: None,
    ) -> bool:
        """Hold the stream of a client whose ticket is good; False if Django must be asked.

        `taken` is called once it is, before the stream.
        """
        returning = self._tickets.read(scope)
        if returning is None:
            return False
        hub = get_hub()
        with hub.staying_awake():
            try:
                if not await hub.may_return(returning.hold, returning.mark):
                    return False
            except StorageUnavailableError:
                await _send_away(returning.start, send)
                return True
            taken()
            # Up to now nothing was withdrawn; what is from now on, the hub hears.
            hold = replace(returning.hold, authorized_at=time.monotonic())
            await send(returning.start)
            await hold_stream(hold, receive, send)
        return True


def _hold(stream: _Stream | None, send: Send) -> Awaitable[None]:
    """Hold a stream, if there is one; nothing that led to it is kept."""
    return _nothing() if stream is None else hold_stream(*stream, send)


async def _nothing() -> None:
    pass


async def _send_away(start: Message, send: Send) -> None:
    await send(start)
    await send({"type": "http.response.body", "body": sse.encode_retry(retry_milliseconds())})


def _control_mark() -> ControlMark | None:
    return get_hub().control_mark


class _Answer:
    """Passes Django's answer on, unless it is the one that stands for a stream to be held."""

    def __init__(self, send: Send, answered: Callable[[bool], None]) -> None:
        self.offer = Offer()
        self.start: Message = {}
        self.hold: Hold | None = None
        """What to hold, once the whole answer has been seen, and is as the view made it."""
        self._send = send
        self._answered = answered
        self._is_passing = False

    async def send(self, message: Message) -> None:
        if self._is_passing:
            await self._send(message)
        elif self.offer.hold is None:
            self._is_passing = True
            self._answered(False)
            await self._send(message)
        elif not self.start and message["type"] == "http.response.start":
            self.start = message
        elif obstacle := self._obstacle(message):
            logger.warning("The wrapper does not hold a stream: %s", obstacle)
            self._is_passing = True
            self._answered(True)
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
    if (encoding := headers.get(b"content-encoding", "")) not in ("", NO_ENCODING):
        return f"it has Content-Encoding {encoding}"
    kind = headers.get(b"content-type", "")
    return "" if kind.startswith(sse.CONTENT_TYPE) else f"it has Content-Type {kind}"


def _without_length(start: Message) -> Message:
    lasting = [header for header in start["headers"] if header[0].lower() != b"content-length"]
    return {**start, "headers": lasting}
