"""ASGI middleware of others around the wrapper: it finds what it would find without the wrapper."""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar

import anyio
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.urls import path
from fastapi import FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.middleware.base import BaseHTTPMiddleware

from django_eventstream import asend_event
from django_eventstream.asgi import EventStreamApplication
from django_eventstream.hub.current import get_hub
from django_eventstream.views import events
from tests.visitor import Visitor

LANES = {"plain": ASGIHandler, "wrapper": lambda: EventStreamApplication(ASGIHandler())}
CLIENTS = 3
EVENTS = 5

urlpatterns = [path("events/", events)]
client: ContextVar[str] = ContextVar("client")


@pytest.fixture(autouse=True)
def without_a_log(settings):
    settings.EVENTSTREAM_STORAGE_CLASS = None
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = []


@pytest.fixture(params=LANES)
def application(request):
    return LANES[request.param]()


def stream(application, visitors, *, meanwhile=lambda: asyncio.sleep(0)) -> None:
    """All visitors get all events, and leave; whatever goes wrong is raised."""

    async def main() -> None:
        visits = [visitor.begin(application) for visitor in visitors]
        for visitor in visitors:
            await visitor.wait_for(b"stream-open")
        for number in range(EVENTS):
            await asend_event("a", "message", number)
            for visitor in visitors:
                await visitor.wait_for(b"data: %d\n" % number)
        await meanwhile()
        for visitor in visitors:
            visitor.is_gone.set()
        await asyncio.wait_for(asyncio.gather(*visits), 30)
        # Whoever has left is held no more, and no task is left behind.
        assert get_hub().statistics().connections == 0
        assert asyncio.all_tasks() <= {asyncio.current_task()}

    asyncio.run(main())


def named_visitors() -> list[Visitor]:
    return [Visitor(headers={"x-client": str(number)}) for number in range(CLIENTS)]


def test_a_context_variable_is_the_clients_own_in_every_send_and_receive(application):
    """The wrapper sent with the context of whoever came first: 14 of 15 chunks were wrong."""
    found: list[tuple[str, str]] = []

    async def remembering(scope, receive, send) -> None:
        name = dict(scope["headers"])[b"x-client"].decode()
        client.set(name)

        async def noting_receive():
            found.append((name, client.get("nobody")))
            message = await receive()
            found.append((name, client.get("nobody")))
            return message

        async def noting_send(message) -> None:
            found.append((name, client.get("nobody")))
            await send(message)
            found.append((name, client.get("nobody")))

        await application(scope, noting_receive, noting_send)

    stream(remembering, named_visitors())
    assert len(found) > 2 * CLIENTS * EVENTS
    assert [pair for pair in found if pair[0] != pair[1]] == []


def test_a_context_variable_that_is_set_for_a_send_can_be_reset_after_it(application):
    async def setting(scope, receive, send) -> None:
        async def setting_send(message) -> None:
            token = client.set("sending")
            await asyncio.sleep(0)
            await send(message)
            client.reset(token)

        await application(scope, receive, setting_send)

    stream(setting, named_visitors())


def test_what_one_send_leaves_in_a_context_variable_the_next_one_finds(application):
    counts: dict[str, list[int]] = {}
    count: ContextVar[int] = ContextVar("count", default=0)

    async def counting(scope, receive, send) -> None:
        mine = counts.setdefault(dict(scope["headers"])[b"x-client"].decode(), [])

        async def counting_send(message) -> None:
            count.set(count.get() + 1)
            mine.append(count.get())
            await send(message)

        await application(scope, receive, counting_send)

    stream(counting, named_visitors())
    assert len(counts) == CLIENTS
    for mine in counts.values():
        assert mine == list(range(1, len(mine) + 1))


def test_a_deadline_around_receive_and_send_cuts_no_stream(application):
    """It cancelled the task that held the stream."""
    expired = 0

    async def limiting(scope, receive, send) -> None:
        async def limited_receive():
            nonlocal expired
            while True:
                with anyio.move_on_after(0.01):
                    return await receive()
                expired += 1

        async def limited_send(message) -> None:
            with anyio.fail_after(30):
                await anyio.sleep(0.001)
                await send(message)

        await application(scope, limited_receive, limited_send)

    async def some_deadlines() -> None:
        already = expired
        while expired < already + 3 * CLIENTS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    stream(limiting, named_visitors(), meanwhile=some_deadlines)


def test_opentelemetry_traces_each_send_of_a_stream(application, caplog):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    visitors = named_visitors()
    stream(OpenTelemetryMiddleware(application, tracer_provider=provider), visitors)
    assert [r.getMessage() for r in caplog.records if r.name.startswith("opentelemetry")] == []
    spans = exporter.get_finished_spans()
    parents = [span for span in spans if span.parent is None]
    assert len(parents) == CLIENTS
    # Each span belongs to the client's own, and all of them were ended.
    assert {span.parent.span_id for span in spans if span.parent} == {
        span.context.span_id for span in parents
    }


def test_sentry_sees_each_client_by_itself(application, monkeypatch):
    # Sentry imports eventlet to ask it something: it warns then, and at each fork from then on.
    monkeypatch.setitem(sys.modules, "eventlet", None)
    import sentry_sdk
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

    sent = []
    with sentry_sdk.isolation_scope(), sentry_sdk.new_scope() as scope:
        options = {"default_integrations": False, "traces_sample_rate": 1.0, "dsn": None}
        scope.set_client(sentry_sdk.Client(**options))

        async def naming(scope, receive, send) -> None:
            name = dict(scope["headers"])[b"x-client"].decode()
            sentry_sdk.get_isolation_scope().set_tag("client", name)

            async def noting_send(message) -> None:
                sent.append((name, sentry_sdk.get_isolation_scope()._tags.get("client")))
                await send(message)

            await application(scope, receive, noting_send)

        stream(SentryAsgiMiddleware(naming), named_visitors())
    assert len(sent) > CLIENTS * EVENTS
    assert [pair for pair in sent if pair[0] != pair[1]] == []


def test_starlettes_middleware_around_a_stream_hears_its_client_leave(application):
    async def passing(request, call_next):
        return await call_next(request)

    stream(BaseHTTPMiddleware(application, dispatch=passing), named_visitors())


def test_streams_of_a_mount_under_fastapi_end_in_silence(application, caplog):
    """Each client that left was an exception in the log."""
    api = FastAPI()

    @api.middleware("http")
    async def timing(request, call_next):
        response = await call_next(request)
        response.headers["x-timed"] = "yes"
        return response

    api.mount("/site", application)
    visitors = [Visitor("/site/events/?channel=a") for _ in range(CLIENTS)]
    stream(api, visitors)
    assert [visitor.headers["x-timed"] for visitor in visitors] == ["yes"] * CLIENTS
    assert [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []
