"""A client that leaves at any moment is forgotten at once, not when garbage is collected."""

from __future__ import annotations

import asyncio
import gc

import pytest
from django.core.handlers.asgi import ASGIHandler

from django_eventstream.asgi import EventStreamApplication
from django_eventstream.hub.current import get_hub
from tests.services.deadline import HEALTHY
from tests.visitor import Visitor


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


@pytest.fixture
def no_garbage_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    ("make_application", "hangs_at"),
    [
        (ASGIHandler, None),
        (ASGIHandler, "http.response.start"),
        (ASGIHandler, "http.response.body"),
        # It joins the hub after the start was taken.
        (lambda: EventStreamApplication(ASGIHandler()), None),
        (lambda: EventStreamApplication(ASGIHandler()), "http.response.body"),
    ],
)
@pytest.mark.parametrize("middleware", [[], [f"{__name__}.wrapping"]])
def test_a_client_that_leaves_leaves_nothing_in_the_hub(
    make_application, hangs_at, middleware, settings, no_garbage_collection
):
    settings.EVENTSTREAM_STORAGE_CLASS = None
    settings.MIDDLEWARE = middleware

    async def main() -> None:
        visitor = Visitor(hangs_at=hangs_at)
        visiting = visitor.begin(make_application())
        await asyncio.wait_for(visitor.is_reached.wait(), HEALTHY)
        visitor.is_gone.set()
        await asyncio.wait_for(visiting, HEALTHY)
        assert get_hub().statistics().connections == 0
        assert get_hub().statistics().channels == 0

    asyncio.run(main())
