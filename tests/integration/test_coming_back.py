"""What a client costs that comes back and has missed nothing: tabs are hidden and shown all day."""

from __future__ import annotations

import asyncio

import pytest
from django.core.handlers.asgi import ASGIHandler

from django_eventstream import send_events, sse
from django_eventstream.asgi import EventStreamApplication
from tests import statements
from tests.visitor import Visitor

pytestmark = pytest.mark.django_db(transaction=True)

LANES = {"plain": ASGIHandler, "wrapper": lambda: EventStreamApplication(ASGIHandler())}
TIMES = 5


@pytest.fixture(autouse=True)
def quiet(settings):
    """No statement but those that the clients cost."""
    settings.MIDDLEWARE = []
    settings.EVENTSTREAM_POLL_SECONDS = 600
    statements.start_counting()


async def begin(application, channel, cursor=""):
    headers = {"last-event-id": cursor} if cursor else {}
    visitor = Visitor(f"/events/?channel={channel}", headers=headers)
    visiting = visitor.begin(application)
    await visitor.wait_for(b"stream-open\ndata: \nid: ")
    return visitor, visiting


async def leave(visitor, visiting):
    visitor.is_gone.set()
    await asyncio.wait_for(visiting, 30)


async def costs_of_coming_back(application, channel, cursor):
    """Statements on the log, and connections to its database, of each time."""
    before = statements.counts.total(), statements.connections.total()
    for _ in range(TIMES):
        visitor, visiting = await begin(application, channel, cursor)
        assert visitor.body == sse.encode_open(cursor)
        await leave(visitor, visiting)
    after = statements.counts.total(), statements.connections.total()
    return [(b - a) / TIMES for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize("make_application", LANES.values(), ids=LANES)
@pytest.mark.parametrize(
    ("held", "expected"),
    [
        pytest.param("a", [0, 0], id="somebody listens to the channel"),
        pytest.param("b", [1, 0], id="somebody listens to another one"),
        pytest.param("", [1, 1], id="nobody listens"),
    ],
)
def test_a_client_that_missed_nothing_costs_at_most_one_question(make_application, held, expected):
    send_events([("a", "message", 1), ("a", "message", 2), ("b", "message", 1)])

    async def main():
        application = make_application()
        others = [await begin(application, held)] if held else []
        costs = await costs_of_coming_back(application, "a", "a:2")
        for other in others:
            await leave(*other)
        return costs

    assert asyncio.run(main()) == expected
