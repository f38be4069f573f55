"""The plain lane: a stream out of Django's own ASGI handler, held by this process's hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from asgiref.sync import SyncToAsync
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from django_eventstream import sse
from django_eventstream.hold import EXTENSION, Hold
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
        return HttpResponse(content_type=sse.CONTENT_TYPE)
    return EventStreamResponse(stream(hold), content_type=sse.CONTENT_TYPE)


class EventStreamResponse(StreamingHttpResponse):
    """Ends its stream when the client leaves, in the middle of a chunk too.

    Django closes what iterates over the response, not what is iterated over. A stream that is
    cut while a server sends would be held until the garbage collector comes by.
    """

    def __init__(self, stream: AsyncGenerator[bytes, None], **options: Any) -> None:
        super().__init__(stream, **options)
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # What a middleware put around the stream is closed before it.
        async with aclosing(self._stream):
            async for part in super().__aiter__():
                yield part


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
