"""The plain lane: requests for streams wait before anything of the project sees them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading

import django
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_started
from django.http import HttpResponse
from django.urls import path
from django.views import View

from django_eventstream.asgi import EventStreamApplication
from django_eventstream.channelmanager import DefaultChannelManager
from django_eventstream.views import events
from django_eventstream.web import lobby as module
from django_eventstream.web import streams, turnstile
from tests.visitor import Visitor

MODULE = __name__
LIMIT = 2


class Gate:
    """A middleware in which requests stay until a test lets them go."""

    lock = threading.Lock()
    opened = threading.Event()
    inside = all = 0


def gated(get_response):
    def middleware(request):
        with Gate.lock:
            Gate.inside += 1
            Gate.all += 1
        Gate.opened.wait(20)
        with Gate.lock:
            Gate.inside -= 1
        return get_response(request)

    return middleware


kept: list[contextvars.Context] = []


def keeping(get_response):
    def middleware(request):
        kept.append(contextvars.copy_context())
        return get_response(request)

    return middleware


class Asked(DefaultChannelManager):
    count = 0

    def get_channels_for_request(self, request, view_kwargs):
        Asked.count += 1
        return super().get_channels_for_request(request, view_kwargs)


class ByHand(View):
    def get(self, request):
        return events(request)


urlpatterns = [
    path("events/", events),
    path("by-hand/", ByHand.as_view()),
    path("page/", lambda request: HttpResponse("a page")),
]


@pytest.fixture(autouse=True)
def lobby(settings, monkeypatch):
    settings.ROOT_URLCONF = MODULE
    settings.EVENTSTREAM_STORAGE_CLASS = None
    settings.EVENTSTREAM_REQUEST_LIMIT = LIMIT
    settings.MIDDLEWARE = [f"{MODULE}.gated"]
    Gate.opened.clear()
    Gate.inside = Gate.all = 0
    mine = module.Lobby()
    monkeypatch.setattr(streams, "lobby", mine)
    module.lobby.close()
    mine.open()
    yield mine
    mine.close()
    module.lobby.open()
    Gate.opened.set()


@pytest.fixture
def uncollected():
    """No garbage is collected before the test is over."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def run(main):
    asyncio.run(asyncio.wait_for(main, 60))


async def until(is_so):
    while not is_so():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def leave(visitors, visits):
    for visitor in visitors:
        visitor.is_gone.set()
    await asyncio.wait_for(asyncio.gather(*visits), 20)


async def settle(application, *, inside: int = LIMIT) -> None:
    """Waits until so many are inside, and a page that was asked for later has been answered."""
    await until(lambda: Gate.inside >= inside)
    page = Visitor("/page/")
    visit = page.begin(application)
    await until(lambda: Gate.inside > inside)
    assert Gate.inside == inside + 1
    Gate.opened.set()
    await asyncio.wait_for(visit, 20)
    assert page.body == b"a page"


def test_so_many_requests_are_within_django_at_once_and_the_others_have_no_thread():
    """Three hundred clients who came back had 300 threads, and as many database connections."""

    async def main():
        application, before = ASGIHandler(), threading.active_count()
        visitors = [Visitor() for _ in range(30)]
        visits = [visitor.begin(application) for visitor in visitors]
        await until(lambda: Gate.inside == LIMIT)
        if django.VERSION < (6, 1):
            assert threading.active_count() - before <= 3 * LIMIT
        # Those inside have one each, and those who wait share some, or had one for a moment.
        await until(lambda: threading.active_count() - before <= 3 * LIMIT)
        await settle(application)
        for visitor in visitors:
            await visitor.wait_for(b"stream-open")
        await leave(visitors, visits)

    run(main())


def test_a_request_that_ends_otherwise_gives_its_place_to_the_next(settings):
    settings.MIDDLEWARE = []

    async def main():
        application = ASGIHandler()
        for query in ("", "?channel=" + "x" * 1000):
            for _ in range(LIMIT + 1):
                refused = await asyncio.wait_for(Visitor(f"/events/{query}").visit(application), 20)
                assert b"stream-error" in refused.body
        visitors = [Visitor() for _ in range(LIMIT + 1)]
        visits = [visitor.begin(application) for visitor in visitors]
        for visitor in visitors:
            await visitor.wait_for(b"stream-open")
        await leave(visitors, visits)

    run(main())


def test_a_request_is_over_when_django_says_so_whatever_is_kept_of_it(settings, monkeypatch):
    """A task that outlives its request keeps its context."""
    monkeypatch.setattr(turnstile, "OVERDUE_SECONDS", 600)
    settings.MIDDLEWARE = [f"{MODULE}.keeping"]
    kept.clear()

    async def main():
        application = ASGIHandler()
        for _ in range(LIMIT + 1):
            refused = await asyncio.wait_for(Visitor("/events/").visit(application), 20)
            assert b"stream-error" in refused.body

    run(main())
    assert len(kept) == LIMIT + 1


@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")
def test_a_request_that_fails_gives_its_place_to_the_next(monkeypatch, uncollected):
    """Django does not say that it is over, and its error may be in a cycle with all that it had."""
    monkeypatch.setattr(turnstile, "OVERDUE_SECONDS", 600)

    async def main():
        application = ASGIHandler()

        async def fail(number: int) -> None:
            visitor, has_asked = Visitor("/events/"), []

            async def receive():
                if has_asked:
                    await until(lambda: Gate.all > number)
                    Gate.opened.set()
                    raise RuntimeError("a fault")
                has_asked.append(True)
                return {"type": "http.request", "body": b"", "more_body": False}

            with pytest.raises(RuntimeError, match="a fault"):
                # In a task of its own, as servers do: asgiref leaves things behind in the context.
                await asyncio.ensure_future(application(visitor.scope, receive, visitor._send))

        for number in range(LIMIT):
            Gate.opened.clear()
            await fail(number)
            await until(lambda: not Gate.inside)
        visitor = Visitor()
        visit = visitor.begin(application)
        await visitor.wait_for(b"stream-open")
        await leave([visitor], [visit])

    run(main())


# Django leaves the body of a request open that is cancelled.
@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")
def test_a_request_that_is_cancelled_gives_its_place_to_the_next(monkeypatch, uncollected):
    """Within Django or while it waits; a server cancels what its client has left."""
    monkeypatch.setattr(turnstile, "OVERDUE_SECONDS", 600)

    async def main():
        application = ASGIHandler()
        visitors = [Visitor() for _ in range(3 * LIMIT)]
        visits = [visitor.begin(application) for visitor in visitors]
        await until(lambda: Gate.inside == LIMIT)
        for visit in visits[: 2 * LIMIT]:
            visit.cancel()
        await asyncio.sleep(0)
        Gate.opened.set()
        await asyncio.wait(visits[: 2 * LIMIT])
        for visitor in visitors[2 * LIMIT :]:
            await visitor.wait_for(b"stream-open")
        await leave(visitors, visits[2 * LIMIT :])

    run(main())


def test_a_view_that_calls_ours_is_known_by_its_first_stream(settings):
    async def main():
        application = ASGIHandler()
        Gate.opened.set()
        first = Visitor("/by-hand/?channel=a")
        visits = [first.begin(application)]
        await first.wait_for(b"stream-open")
        Gate.opened.clear()
        visitors = [Visitor("/by-hand/?channel=a") for _ in range(2 * LIMIT)]
        visits += [visitor.begin(application) for visitor in visitors]
        await settle(application)
        for visitor in visitors:
            await visitor.wait_for(b"stream-open")
        await leave([first, *visitors], visits)

    run(main())


def test_a_request_that_waits_in_vain_is_told_when_to_come_back(settings, monkeypatch):
    """It is a stream that ends, and the channel manager is not asked."""
    monkeypatch.setattr(turnstile, "WAIT_SECONDS", 0.05)
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = f"{MODULE}.Asked"
    Asked.count = 0

    async def main():
        application = ASGIHandler()
        visitors = [Visitor() for _ in range(LIMIT)]
        visits = [visitor.begin(application) for visitor in visitors]
        await until(lambda: Gate.inside == LIMIT)
        late = Visitor()
        visit = late.begin(application)
        await until(lambda: module.SENT_AWAY in late.scope)
        Gate.opened.set()
        await asyncio.wait_for(visit, 20)
        assert late.status == 200
        assert late.headers["content-type"] == "text/event-stream"
        assert late.body.startswith(b"event: keep-alive\nretry: ")
        for visitor in visitors:
            await visitor.wait_for(b"stream-open")
        await leave(visitors, visits)
        assert Asked.count == LIMIT

    run(main())


def test_behind_a_wrapper_nobody_waits_twice(lobby):
    async def main():
        Gate.opened.set()
        application = EventStreamApplication(ASGIHandler())
        visitors = [Visitor() for _ in range(3 * LIMIT)]
        visits = [visitor.begin(application) for visitor in visitors]
        for visitor in visitors:
            await visitor.wait_for(b"stream-open")
        assert lobby._turnstile is None
        await leave(visitors, visits)

    run(main())


def test_receivers_of_other_handlers_requests_are_not_slowed(lobby):
    """Under WSGI an async receiver would cost each request an event loop."""
    live, asynchronous = request_started._live_receivers(object)
    assert lobby.wait not in asynchronous
    assert asynchronous == []
