"""The plain lane: a stream out of Django's own ASGI handler, held by this process's hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from django_eventstream import sse
from django_eventstream.hold import EXTENSION, Hold, Offer
from django_eventstream.hub.connection import Connection
from django_eventstream.hub.current import get_hub
from django_eventstream.proxies import get_proxies, is_proxy_required
from django_eventstream.web.lobby import lobby
from django_eventstream.web.proxy import report_unverified
from django_eventstream.web.releasing import release_request

WSGI_MESSAGE = """\
This server cannot keep an event stream open: it runs under WSGI, where every open stream would \
block one worker. Either run the project under ASGI (uvicorn, daphne, hypercorn, granian; for \
"runserver", put "daphne" first in INSTALLED_APPS), or put a GRIP proxy (Pushpin, Fastly Fanout) \
in front of it and set GRIP_URL.
"""

UNPROXIED_MESSAGE = """\
This server cannot keep an event stream open, because it runs under WSGI; its GRIP proxy could. \
But this request is not taken for one of the proxy: {reason}.
"""

REQUIRED_MESSAGE = """\
This server streams only through its GRIP proxy, since GRIP_PROXY_REQUIRED is set. But this \
request is not taken for one of the proxy: {reason}.
"""


def stream_response(request: HttpRequest, hold: Hold) -> HttpResponseBase:
    """Answer with a stream that this process holds, or with an error that says why it cannot."""
    if obstacle := _obstacle(request):
        return HttpResponse(obstacle, status=501, content_type="text/plain")
    offer = (request.scope.get("extensions") or {}).get(EXTENSION)  # type: ignore[attr-defined]
    if offer is None:
        lobby.learn(request)
    else:
        offer.hold = hold
    return EventStreamResponse(HeldStream(hold), offer, content_type=sse.CONTENT_TYPE)


def _obstacle(request: HttpRequest) -> str:
    if is_proxy_required():
        return REQUIRED_MESSAGE.format(reason=report_unverified(request))
    if not isinstance(request, ASGIRequest):
        if not get_proxies():
            return WSGI_MESSAGE
        return UNPROXIED_MESSAGE.format(reason=report_unverified(request))
    if request.headers.get("Grip-Sig") and get_proxies():
        # The stream is held here all the same, which is not what the proxy is there for.
        report_unverified(request)
    return ""


class EventStreamResponse(StreamingHttpResponse):
    """A stream, or nothing where a wrapper holds it: the same response to all middleware.

    A stream ends when the client leaves, in the middle of a chunk too. Django closes what iterates
    over the response, not what is iterated over: one that is cut while a server sends would be
    held until the garbage collector comes by.
    """

    def __init__(self, stream: HeldStream, offer: Offer | None, **options: Any) -> None:
        super().__init__(stream, **options)
        self._stream = stream
        self._offer = offer

    @property
    def is_handed_over(self) -> bool:
        """Whether a wrapper holds the stream, and nothing of it is sent from here."""
        is_as_made = self._iterator is self._stream  # type: ignore[attr-defined]
        return self._offer is not None and is_as_made and self.status_code == HTTPStatus.OK

    @property
    def content(self) -> Any:
        """See `StreamingHttpResponse.content`: it cannot be read, but a middleware may set it."""
        return super().content

    @content.setter
    def content(self, value: Any) -> None:
        self.streaming_content = _only(self.make_bytes(value))

    def __aiter__(self) -> AsyncIterator[bytes]:
        if not self._is_streamed_here():
            return _nothing()
        return self._stream if self._is_own() else self._wrapped()

    async def _wrapped(self) -> AsyncIterator[bytes]:
        # What a middleware put around the stream is closed before it.
        async with aclosing(self._stream):
            async for part in super().__aiter__():
                yield part

    def _is_own(self) -> bool:
        return self._iterator is self._stream  # type: ignore[attr-defined]

    def _is_streamed_here(self) -> bool:
        if self.status_code != HTTPStatus.OK:
            # A middleware refuses, and who is refused gets no event.
            self._say_obstacle(f"it has status {self.status_code}")
            return False
        if not self._is_own():
            self._say_obstacle("its chunks are wrapped or replaced")
            return True
        self._say_obstacle("")
        return self._offer is None

    def _say_obstacle(self, obstacle: str) -> None:
        if self._offer is not None:
            self._offer.obstacle = obstacle


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _only(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


class HeldStream:
    """The chunks of a stream, for an `async for`: whoever asks for the next one waits in the hub.

    It is no generator, of which there would be one more to wake up for each delivery.
    """

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._connection: Connection | None = None
        self._is_closed = False
        self._untaken = b""
        """What came when whoever had asked did not wait for it any more."""

    def __aiter__(self) -> HeldStream:
        return self

    def __anext__(self) -> Awaitable[bytes]:
        if self._connection is None:
            return self._begin()
        self._asked: asyncio.Future[bytes] = self._loop.create_future()
        if self._untaken:
            self._asked.set_result(self._untaken)
            self._untaken = b""
        else:
            self._connection.ready()
        return self._asked

    async def aclose(self) -> None:
        """Leave the hub."""
        self._is_closed = True
        if self._connection is not None:
            self._hub.leave(self._connection)

    def send(self, chunk: bytes) -> bool:
        """See `Outlet.send()`: it is gone when the next one is asked for."""
        if self._asked.done():
            self._untaken = chunk
        else:
            self._asked.set_result(chunk)
        return False

    def end(self, error: Exception | None = None) -> None:
        """See `Outlet.end()`."""
        if not self._asked.done():
            self._asked.set_exception(error or StopAsyncIteration())

    async def _begin(self) -> bytes:
        if not self._is_closed:
            await release_request()
            lobby.finish()
        if self._is_closed:
            raise StopAsyncIteration
        self._hub = get_hub()
        self._loop = asyncio.get_running_loop()
        self._asked = self._loop.create_future()
        self._connection = self._hub.join(self._hold, self)
        return await self._asked
