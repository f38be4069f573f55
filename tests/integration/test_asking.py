"""How the wrapper asks Django: a few at once, each in one thread, and all of Django takes part."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress

import pytest
from asgiref.sync import sync_to_async
from channels.routing import ProtocolTypeRouter
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished, request_started
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import include, path
from django.utils.decorators import async_only_middleware, sync_only_middleware
from django.views import View

from django_eventstream.asgi import EventStreamApplication
from django_eventstream.views import events
from django_eventstream.web import turnstile
from tests.services.deadline import HEALTHY, wait_until
from tests.visitor import Visitor

MODULE = __name__
seen: dict[str, list] = {}


@async_only_middleware
def in_the_loop(get_response):
    async def middleware(request):
        seen.setdefault("loops", []).append(asyncio.get_running_loop())
        return await get_response(request)

    return middleware


@sync_only_middleware
def in_a_thread(get_response):
    def middleware(request):
        seen.setdefault("threads", []).append(threading.current_thread())
        return get_response(request)

    return middleware


@async_only_middleware
def writing_later(get_response):
    """Lets something be written in a thread, and does not wait for it."""

    async def middleware(request):
        response = await get_response(request)
        writing = sync_to_async(lambda: threading.current_thread())
        seen.setdefault("written", []).append(asyncio.ensure_future(writing()))
        return response

    return middleware


class Gate:
    """A middleware in which requests stay until a test lets them go."""

    lock = threading.Lock()
    opened = threading.Event()
    inside = most = all = 0


def gated(get_response):
    def middleware(request):
        with Gate.lock:
            Gate.all += 1
            Gate.inside += 1
            Gate.most = max(Gate.most, Gate.inside)
        Gate.opened.wait(HEALTHY)
        with Gate.lock:
            Gate.inside -= 1
        return get_response(request)

    return middleware


class ByHand(View):
    def get(self, request):
        seen.setdefault("by hand", []).append(threading.current_thread().name)
        return events(request)


async def others(request):
    async def endless():
        yield b"data: 1\n\n"
        await asyncio.get_running_loop().create_future()

    return StreamingHttpResponse(endless(), content_type="text/event-stream")


async def page(request):
    return HttpResponse("a page")


async def of_async(request):
    async def answer(request):
        return await sync_to_async(events)(request)

    return await writing_later(answer)(request)


def slow_page(request):
    Gate.opened.wait(10)
    return HttpResponse("a page")


class Unhashable:
    """A view of a kind that some projects have."""

    __hash__ = None

    def __eq__(self, other):
        return self is other

    def __call__(self, request):
        seen.setdefault("by hand", []).append(threading.current_thread().name)
        return events(request)


urlpatterns = [
    path("events/", events),
    path("included/", include("django_eventstream.urls")),
    path("by-hand/", ByHand.as_view()),
    path("others/", others),
    path("page/", page),
    path("slow/", slow_page),
    path("async/", of_async),
    path("unhashable/", Unhashable()),
]


@pytest.fixture(autouse=True)
def project(settings):
    settings.ROOT_URLCONF = MODULE
    settings.EVENTSTREAM_STORAGE_CLASS = None
    settings.MIDDLEWARE = []
    seen.clear()
    Gate.opened.clear()
    Gate.inside = Gate.most = Gate.all = 0
    yield
    # Threads of visitors that were dismissed count themselves out before another test counts.
    Gate.opened.set()
    wait_until(lambda: Gate.inside == 0)


def run(main):
    asyncio.run(asyncio.wait_for(main, HEALTHY))


async def until(is_so):
    while not is_so():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def dismiss(*visits):
    for visit in visits:
        visit.cancel()
    for visit in visits:
        with suppress(asyncio.CancelledError):
            await visit


def test_middleware_of_both_kinds_takes_part_where_it_belongs(settings):
    settings.MIDDLEWARE = [f"{MODULE}.in_a_thread", f"{MODULE}.in_the_loop"] * 2

    async def main():
        visitor = Visitor()
        visit = visitor.begin(EventStreamApplication(ASGIHandler()))
        await visitor.wait_for(b"stream-open")
        assert seen["loops"] == [asyncio.get_running_loop()] * 2
        assert len(set(seen["threads"])) == 1
        assert seen["threads"][0] is not threading.main_thread()
        await dismiss(visit)

    run(main())


@pytest.mark.parametrize("lane", [ASGIHandler, lambda: EventStreamApplication(ASGIHandler())])
@pytest.mark.parametrize("where", ["/events/?channel=a", "/async/?channel=a"])
def test_what_async_code_does_in_a_thread_later_is_done(settings, lane, where):
    """In the wrapper the executor was gone: "CurrentThreadExecutor already quit or is broken"."""
    settings.MIDDLEWARE = [] if "async" in where else [f"{MODULE}.writing_later"]

    async def main():
        application = lane()
        for _ in range(2):  # the second time the view is known
            visitor = Visitor(where)
            visit = visitor.begin(application)
            await visitor.wait_for(b"stream-open")
            (written,) = seen.pop("written")
            assert await asyncio.wait_for(written, HEALTHY) is not threading.main_thread()
            visitor.is_gone.set()
            await asyncio.wait_for(visit, HEALTHY)

    run(main())


def test_the_request_begins_and_ends_once_in_the_thread_of_the_view(settings):
    settings.MIDDLEWARE = [f"{MODULE}.in_a_thread"]
    told = []

    def started(**kwargs):
        told.append(("started", threading.current_thread()))

    def finished(**kwargs):
        told.append(("finished", threading.current_thread()))

    async def main():
        visitor = Visitor()
        visit = visitor.begin(EventStreamApplication(ASGIHandler()))
        await visitor.wait_for(b"stream-open")
        await dismiss(visit)

    request_started.connect(started)
    request_finished.connect(finished)
    try:
        run(main())
    finally:
        request_started.disconnect(started)
        request_finished.disconnect(finished)
    (thread,) = seen["threads"]
    assert told == [("started", thread), ("finished", thread)]


@pytest.mark.parametrize("wrap", [lambda django: django, lambda d: ProtocolTypeRouter({"http": d})])
def test_no_more_than_the_limit_are_within_django(settings, wrap):
    settings.EVENTSTREAM_REQUEST_LIMIT = 3
    settings.MIDDLEWARE = [f"{MODULE}.gated"]

    async def main():
        application = EventStreamApplication(wrap(ASGIHandler()))
        visitors = [Visitor() for _ in range(10)]
        visits = [visitor.begin(application) for visitor in visitors]
        await until(lambda: Gate.inside == 3)
        # Whoever asks for something else does not wait.
        passing = Visitor("/page/", headers={"accept": "text/html"})
        visits.append(passing.begin(application))
        await until(lambda: Gate.inside == 4)
        assert Gate.all == 4
        Gate.opened.set()
        for visitor in visitors:
            await visitor.wait_for(b"stream-open")
        assert Gate.all == 11
        await dismiss(*visits)

    run(main())


@pytest.mark.parametrize("wrap", [lambda django: django, lambda d: ProtocolTypeRouter({"http": d})])
def test_a_place_is_kept_until_the_database_connections_are_closed(settings, wrap):
    """Within a router a place was left before Django closed them: 27 connections at 20 places."""
    settings.EVENTSTREAM_REQUEST_LIMIT = 2
    open_requests, most = 0, 0
    lock = threading.Lock()

    def started(**kwargs):
        nonlocal open_requests, most
        with lock:
            open_requests += 1
            most = max(most, open_requests)

    def finishing(**kwargs):
        nonlocal open_requests
        # As it takes its time on a busy machine.
        time.sleep(0.02)
        with lock:
            open_requests -= 1

    async def main():
        application = EventStreamApplication(wrap(ASGIHandler()))
        visitors = [Visitor() for _ in range(10)]
        visits = [visitor.begin(application) for visitor in visitors]
        for visitor in visitors:
            await visitor.wait_for(b"stream-open")
        await dismiss(*visits)

    request_started.connect(started)
    request_finished.connect(finishing)
    try:
        run(main())
    finally:
        request_started.disconnect(started)
        request_finished.disconnect(finishing)
    assert (open_requests, most) == (0, 2)


def test_a_client_that_leaves_while_it_waits_costs_django_nothing(settings):
    settings.EVENTSTREAM_REQUEST_LIMIT = 1
    settings.MIDDLEWARE = [f"{MODULE}.gated"]

    async def main():
        application = EventStreamApplication(ASGIHandler())
        first, impatient, last = Visitor(), Visitor(), Visitor()
        visits = [first.begin(application)]
        await until(lambda: Gate.inside == 1)
        visit = impatient.begin(application)
        visits.append(last.begin(application))
        impatient.is_gone.set()
        await visit
        assert impatient.start == {}
        Gate.opened.set()
        await last.wait_for(b"stream-open")
        assert Gate.all == 2
        await dismiss(*visits)

    run(main())


def test_streams_of_other_packages_take_no_place(settings):
    settings.EVENTSTREAM_REQUEST_LIMIT = 1

    async def main():
        application = EventStreamApplication(ASGIHandler())
        foreign = [Visitor("/others/") for _ in range(3)]
        visits = []
        for visitor in foreign:
            visits.append(visitor.begin(application))
            await visitor.wait_for(b"data: 1")
        mine = Visitor()
        visit = mine.begin(application)
        await mine.wait_for(b"stream-open")
        for visitor in foreign:
            visitor.is_gone.set()
        await asyncio.gather(*visits)
        await dismiss(visit)

    run(main())


def test_a_view_that_calls_ours_is_known_by_its_first_stream():
    async def main():
        application = EventStreamApplication(ASGIHandler())
        visits = []
        for where in ("/by-hand/", "/by-hand/?channel=a", "/by-hand/?channel=a", "/by-hand/"):
            visitor = Visitor(where)
            visits.append(visitor.begin(application))
            await visitor.wait_for(b"stream-")
        await dismiss(*visits)

    run(main())
    # An error is no stream; after one has been seen the others are asked in the threads for them.
    ours = [name.startswith("eventstream-request") for name in seen["by hand"]]
    assert ours == [False, False, True, True]


def test_a_view_that_cannot_be_hashed_is_known_by_its_first_stream():
    """It failed in the wrapper with a `TypeError`."""

    async def main():
        application, visits = EventStreamApplication(ASGIHandler()), []
        for _ in range(2):
            visitor = Visitor("/unhashable/?channel=a")
            visits.append(visitor.begin(application))
            await visitor.wait_for(b"stream-open")
        await dismiss(*visits)

    run(main())
    ours = [name.startswith("eventstream-request") for name in seen["by hand"]]
    assert ours == [False, True]


def test_unfinished_requests_take_no_place_and_are_refused(settings, monkeypatch):
    """As many as there are places, and no stream was opened any more."""
    settings.EVENTSTREAM_REQUEST_LIMIT = 2

    async def main():
        application = EventStreamApplication(ASGIHandler())
        unfinished = [Visitor(is_unfinished=True) for _ in range(4)]
        visits = [visitor.begin(application) for visitor in unfinished]
        await asyncio.sleep(0)
        mine = Visitor()
        visits.append(mine.begin(application))
        await mine.wait_for(b"stream-open")
        await asyncio.wait_for(asyncio.gather(*visits[:4]), HEALTHY)
        assert {visitor.status for visitor in unfinished} == {408}
        assert unfinished[0].headers["connection"] == "close"
        await dismiss(*visits)

    monkeypatch.setattr(turnstile, "BODY_SECONDS", 0.2)
    run(main())


def test_what_may_be_no_request_for_a_stream_passes_however_long_its_body_takes(monkeypatch):
    monkeypatch.setattr(turnstile, "BODY_SECONDS", 0.01)

    async def main():
        visitor = Visitor("/page/", is_unfinished=True)
        visit = visitor.begin(EventStreamApplication(ASGIHandler()))
        await asyncio.sleep(0.1)  # several times as long as it may take
        assert not visit.done()
        visitor.is_gone.set()
        await asyncio.wait_for(visit, HEALTHY)
        assert visitor.start == {}

    run(main())


def test_slow_pages_hold_up_no_stream(settings):
    """As many as there are places, asked for as if they were streams, held up all streams."""
    settings.EVENTSTREAM_REQUEST_LIMIT = 2

    async def main():
        application = EventStreamApplication(ASGIHandler())
        visits = [Visitor("/slow/").begin(application) for _ in range(4)]
        await asyncio.sleep(0)
        mine = Visitor()
        visits.append(mine.begin(application))
        await mine.wait_for(b"stream-open")
        Gate.opened.set()
        await asyncio.wait_for(asyncio.gather(*visits[:4]), HEALTHY)
        await dismiss(visits[4])

    run(main())


def test_a_view_that_has_not_answered_when_a_client_leaves_takes_no_place_any_more(settings):
    settings.EVENTSTREAM_REQUEST_LIMIT = 1

    async def main():
        application = EventStreamApplication(ASGIHandler())
        impatient, patient = Visitor("/slow/"), [Visitor("/slow/") for _ in range(3)]
        visits = [impatient.begin(application)]
        await asyncio.sleep(0)
        impatient.is_gone.set()
        route = application._routes.find(impatient.scope)
        await until(lambda: application._routes.find(impatient.scope).is_ours is False)
        assert route.is_ours is None
        visits += [visitor.begin(application) for visitor in patient]
        Gate.opened.set()
        await asyncio.wait_for(asyncio.gather(*visits), HEALTHY)
        assert [visitor.body for visitor in patient] == [b"a page"] * 3

    run(main())


@pytest.mark.parametrize("origin", [None, "https://pages.example"])
def test_a_client_for_which_there_is_no_place_in_time_hears_when_to_come_back(
    settings, monkeypatch, origin
):
    """Where twice as many as there are places hung, newcomers got not a byte."""
    monkeypatch.setattr(turnstile, "WAIT_SECONDS", 0.01)
    settings.EVENTSTREAM_REQUEST_LIMIT = 1
    settings.EVENTSTREAM_ALLOW_ORIGIN = origin
    settings.MIDDLEWARE = [f"{MODULE}.gated"]

    async def main():
        application = EventStreamApplication(ASGIHandler())
        visits = [Visitor().begin(application)]
        await until(lambda: Gate.inside == 1)
        newcomer = Visitor(headers={"origin": origin} if origin else {})
        await asyncio.wait_for(newcomer.visit(application), HEALTHY)
        assert newcomer.status == 200
        assert newcomer.headers["content-type"] == "text/event-stream"
        assert newcomer.headers.get("access-control-allow-origin") == origin
        assert newcomer.body.startswith(b"event: keep-alive\nretry: ")
        assert newcomer.is_over
        Gate.opened.set()
        await dismiss(*visits)

    run(main())


def streaming_on(get_response):
    """Streams what ends only by itself, and does not let itself be cancelled."""

    async def stubborn():
        yield b"data: 1\n\n"
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()

    def middleware(request):
        get_response(request).close()
        return StreamingHttpResponse(stubborn(), content_type="text/event-stream")

    return middleware


@pytest.mark.parametrize("where", ["/events/", "/events/?channel=a"])
def test_a_receive_that_fails_fails_the_request(settings, where):
    """The wrapper's handler swallowed it where the response went on to its end."""
    settings.MIDDLEWARE = [f"{MODULE}.streaming_on"] * (where == "/events/")

    async def main():
        application = EventStreamApplication(ASGIHandler())
        visitor, has_begun = Visitor(where), asyncio.Event()

        async def receive():
            if not has_begun.is_set():
                has_begun.set()
                return {"type": "http.request", "body": b"", "more_body": False}
            await visitor.is_gone.wait()
            raise RuntimeError("a fault")

        visit = asyncio.ensure_future(application(visitor.scope, receive, visitor._send))
        await visitor.wait_for(b"\n\n")
        visitor.is_gone.set()
        with pytest.raises(RuntimeError, match="a fault"):
            await asyncio.wait_for(visit, HEALTHY)

    run(main())


@pytest.mark.parametrize("where", ["/nowhere/", "/page/", "/events/"])
def test_whatever_else_the_url_leads_to_is_what_django_answers(where):
    async def main():
        plain = await Visitor(where).visit(ASGIHandler())
        wrapped = await Visitor(where).visit(EventStreamApplication(ASGIHandler()))
        assert (wrapped.status, wrapped.body) == (plain.status, plain.body)
        assert wrapped.headers == plain.headers

    run(main())


def test_a_mount_point_is_no_part_of_the_url():
    async def main():
        visitor = Visitor("/site/included/?channel=a")
        visitor.scope["root_path"] = "/site"
        visit = visitor.begin(EventStreamApplication(ASGIHandler()))
        await visitor.wait_for(b"stream-open")
        await dismiss(visit)

    run(main())
