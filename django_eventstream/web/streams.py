"""The plain lane: a stream out of Django's own ASGI handler, held by this process's hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Any

from asgiref.sync import SyncToAsync
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from django_eventstream import sse
from django_eventstream.hold import EXTENSION, Hold, Offer
from django_eventstream.hub.current import get_hub
from django_eventstream.proxies import is_proxy_required

WSGI_MESSAGE = """\
This server cannot keep an event stream open: it runs under WSGI, where every open stream would \
block one worker. Either run the project under ASGI (uvicorn, daphne, hypercorn, granian; for \
"runserver", put "daphne" first in INSTALLED_APPS), or put a GRIP proxy (Pushpin, Fastly Fanout) \
in front of it and set GRIP_URL.
"""

PROXY_MESSAGE = """\
This server streams only through its GRIP proxy (GRIP_PROXY_REQUIRED), and this request did not \
come through one that is configured: see GRIP_URL, GRIP_PROXIES and their keys.
"""


def stream_response(request: HttpRequest, hold: Hold) -> HttpResponseBase:
    """Answer with a stream that this process holds; under WSGI with an error that says why not."""
    if is_proxy_required():
        return HttpResponse(PROXY_MESSAGE, status=501, content_type="text/plain")
    if not isinstance(request, ASGIRequest):
        return HttpResponse(WSGI_MESSAGE, status=501, content_type="text/plain")
    offer = (request.scope.get("extensions") or {}).get(EXTENSION)
    if offer is not None:
        offer.hold = hold
    return EventStreamResponse(stream(hold), offer, content_type=sse.CONTENT_TYPE)


class EventStreamResponse(StreamingHttpResponse):
    """A stream, or nothing where a wrapper holds it: the same response to all middleware.

    A stream ends when the client leaves, in the middle of a chunk too. Django closes what iterates
    over the response, not what is iterated over: one that is cut while a server sends would be
    held until the garbage collector comes by.
    """

    def __init__(
        self, stream: AsyncGenerator[bytes, None], offer: Offer | None, **options: Any
    ) -> None:
        super().__init__(stream, **options)
        self._stream = stream
        self._offer = offer

    @property
    def content(self) -> Any:
        """See `StreamingHttpResponse.content`: it cannot be read, but a middleware may set it."""
        return super().content

    @content.setter
    def content(self, value: Any) -> None:
        self.streaming_content = _only(self.make_bytes(value))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not self._is_streamed_here():
            return
        # What a middleware put around the stream is closed before it.
        async with aclosing(self._stream):
            async for part in super().__aiter__():
                yield part

    def _is_streamed_here(self) -> bool:
        if self.status_code != HTTPStatus.OK:
            # A middleware refuses, and who is refused gets no event.
            self._say_obstacle(f"it has status {self.status_code}")
            return False
        if self._iterator is not self._stream:  # type: ignore[attr-defined]
            self._say_obstacle("its chunks are wrapped or replaced")
            return True
        self._say_obstacle("")
        return self._offer is None

    def _say_obstacle(self, obstacle: str) -> None:
        if self._offer is not None:
            self._offer.obstacle = obstacle


async def _only(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


async def stream(hold: Hold) -> AsyncGenerator[bytes, None]:
    """Yield the stream until the client leaves or the stream ends."""
    await release_request()
    woken = asyncio.Event()
    hub = get_hub()
    connection = hub.join(hold, woken.set)
    try:
        while True:
            woken.clear()
            if chunk := connection.take():
                yield chunk
            elif connection.is_ended:
                return
            else:
                await woken.wait()
    finally:
        hub.leave(connection)


async def release_request() -> None:
    """Let go of the thread and the database connections that Django keeps for the request.

    Django's ASGI handler runs sync middleware and views of one request in a thread of its own,
    and keeps that thread, with its database connections, until the response has ended. The
    executor is taken out of asgiref's context; asgiref makes a new one if anybody needs it.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is None:
        return
    executor = SyncToAsync.context_to_thread_executor.pop(context, None)
    if executor is not None:
        await asyncio.get_running_loop().run_in_executor(executor, connections.close_all)
        executor.shutdown(wait=False)
