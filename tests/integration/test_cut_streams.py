"""A client that leaves at any moment is forgotten at once, not when garbage is collected."""

from __future__ import annotations

import asyncio
import gc

import pytest
from django.core.handlers.asgi import ASGIHandler

from django_eventstream.hub.current import get_hub

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/events/",
    "query_string": b"channel=a",
    "headers": [(b"host", b"testserver")],
    "server": ("testserver", 80),
}


def wrapping(get_response):
    """A middleware that puts something around every stream."""

    async def passed_on(content):
        async for chunk in content:
            yield chunk

    def handle(request):
        response = get_response(request)
        response.streaming_content = passed_on(response.streaming_content)
        return response

    return handle


class Visitor:
    """A client that hangs in the send of a message of one kind, or is sent all, and leaves."""

    def __init__(self, hangs_at: str | None) -> None:
        self.hangs_at = hangs_at
        self.requests = iter([{"type": "http.request", "body": b"", "more_body": False}])
        self.is_reached = asyncio.Event()
        self.is_gone = asyncio.Event()

    async def receive(self):
        for request in self.requests:
            return request
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message) -> None:
        if message["type"] == (self.hangs_at or "http.response.body"):
            self.is_reached.set()
        if message["type"] == self.hangs_at:
            await asyncio.get_running_loop().create_future()

    async def visit(self) -> None:
        answering = asyncio.ensure_future(ASGIHandler()(SCOPE, self.receive, self.send))
        await asyncio.wait_for(self.is_reached.wait(), 5)
        self.is_gone.set()
        await asyncio.wait_for(answering, 5)


@pytest.fixture
def no_garbage_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("hangs_at", [None, "http.response.start", "http.response.body"])
@pytest.mark.parametrize("middleware", [[], [f"{__name__}.wrapping"]])
def test_a_client_that_leaves_leaves_nothing_in_the_hub(
    hangs_at, middleware, settings, no_garbage_collection
):
    settings.EVENTSTREAM_STORAGE_CLASS = None
    settings.MIDDLEWARE = middleware

    async def main() -> None:
        await Visitor(hangs_at).visit()
        assert get_hub().statistics().connections == 0
        assert get_hub().statistics().channels == 0

    asyncio.run(main())
