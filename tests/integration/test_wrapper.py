"""Both lanes with the middleware, the decorators and the routers that projects put around views."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from channels.routing import ProtocolTypeRouter
from django.contrib.auth.decorators import login_required
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished, request_started
from django.urls import path
from django.views.decorators.cache import cache_page
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import condition
from rest_framework.permissions import IsAuthenticated
from rest_framework.views import APIView

from django_eventstream import asend_event
from django_eventstream.asgi import EventStreamApplication
from django_eventstream.hub.current import get_hub
from django_eventstream.views import events
from tests.services.deadline import HEALTHY
from tests.visitor import Visitor

LANES = {"plain": ASGIHandler, "wrapper": lambda: EventStreamApplication(ASGIHandler())}
ROUTED = {
    "around": lambda: EventStreamApplication(ProtocolTypeRouter({"http": ASGIHandler()})),
    "within": lambda: ProtocolTypeRouter({"http": EventStreamApplication(ASGIHandler())}),
}
MIDDLEWARE = "tests.middleware"
STREAM_TYPE = "text/event-stream"


class RestrictedView(APIView):
    permission_classes = (IsAuthenticated,)

    def perform_content_negotiation(self, request, force=False):
        # It has no renderer for streams, which a browser's EventSource accepts alone.
        return super().perform_content_negotiation(request, force=True)

    def get(self, request):
        return events(request._request)


class Anna:
    pk = 1
    is_authenticated = is_active = True


def known(get_response):
    """Everybody is Anna."""

    def middleware(request):
        request.user = Anna()
        return get_response(request)

    return middleware


urlpatterns = [
    path("events/", events),
    path("login-required/", login_required(events, login_url="/log-in/")),
    path("restricted/", RestrictedView.as_view()),
    path("gzip/", gzip_page(events)),
    path("cached/", cache_page(60)(events)),
    path("conditional/", condition(etag_func=lambda request: '"always"')(events)),
]

ANONYMOUS = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


@pytest.fixture(autouse=True)
def without_a_log(settings):
    settings.EVENTSTREAM_STORAGE_CLASS = None
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = []


@pytest.fixture(params=LANES)
def make_application(request):
    return LANES[request.param]


def answer_to(make_application, *arguments, **options) -> Visitor:
    """What an application answers that does not stream."""

    async def main() -> Visitor:
        visit = Visitor(*arguments, **options).visit(make_application())
        return await asyncio.wait_for(visit, HEALTHY)

    return asyncio.run(main())


def stream_of(make_application, *arguments, **options) -> Visitor:
    """A visitor who got an event that was sent meanwhile, and then left."""

    async def main() -> Visitor:
        visitor = Visitor(*arguments, **options)
        visiting = visitor.begin(make_application())
        await visitor.wait_for(b"stream-open")
        await asend_event("a", "message", "one")
        await visitor.wait_for(b'data: "one"')
        assert get_hub().statistics().connections == 1
        visitor.is_gone.set()
        await asyncio.wait_for(visiting, HEALTHY)
        assert get_hub().statistics().connections == 0
        return visitor

    return asyncio.run(main())


def test_headers_and_cookies_that_middleware_sets_stay(make_application, settings):
    settings.MIDDLEWARE = [f"{MIDDLEWARE}.add_header"]
    visitor = stream_of(make_application)
    assert visitor.status == 200
    assert visitor.headers["content-type"] == STREAM_TYPE
    assert visitor.headers["x-seen"] == "yes"
    assert visitor.headers["set-cookie"].startswith("seen=yes")
    assert visitor.headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize(
    ("name", "status", "body", "reason"),
    [
        ("replace_response", 200, b"something else", "another response took its place"),
        ("replace_body", 200, b"something else", "its chunks are wrapped or replaced"),
        ("replace_status", 418, b"", "it has status 418"),
    ],
)
def test_a_middleware_that_makes_the_answer_its_own_is_respected(
    make_application, settings, caplog, name, status, body, reason
):
    settings.MIDDLEWARE = [f"{MIDDLEWARE}.{name}"]
    visitor = answer_to(make_application)
    assert (visitor.status, visitor.body) == (status, body)
    warnings = [r.getMessage() for r in caplog.records if r.name == "django_eventstream.asgi"]
    is_wrapped = make_application is LANES["wrapper"]
    assert warnings == [f"The wrapper does not hold a stream: {reason}"] * is_wrapped


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("replace_type", "it has Content-Type text/plain"),
        ("claim_encoding", "it has Content-Encoding br"),
    ],
)
def test_the_wrapper_does_not_hold_what_has_no_head_of_a_stream(settings, caplog, name, reason):
    settings.MIDDLEWARE = [f"{MIDDLEWARE}.{name}"]
    visitor = answer_to(LANES["wrapper"])
    assert (visitor.status, visitor.body) == (200, b"")
    assert reason in caplog.text


def test_chunks_that_middleware_wraps_are_streamed_through_it(make_application, settings):
    """The wrapper gave such a middleware a response without chunks, and it failed."""
    settings.MIDDLEWARE = [f"{MIDDLEWARE}.wrap_chunks"]

    async def main() -> None:
        visitor = Visitor()
        visiting = visitor.begin(make_application())
        await visitor.wait_for(b"STREAM-OPEN")
        await asend_event("a", "message", "one")
        await visitor.wait_for(b'DATA: "ONE"')
        visitor.is_gone.set()
        await asyncio.wait_for(visiting, HEALTHY)
        assert get_hub().statistics().connections == 0

    asyncio.run(main())


def test_the_log_says_that_wrapped_chunks_are_not_held_by_the_wrapper(settings, caplog):
    settings.MIDDLEWARE = [f"{MIDDLEWARE}.wrap_chunks"]

    async def main() -> None:
        visitor = Visitor()
        visiting = visitor.begin(LANES["wrapper"]())
        await visitor.wait_for(b"STREAM-OPEN")
        visitor.is_gone.set()
        await visiting

    asyncio.run(main())
    assert "The wrapper does not hold a stream: its chunks are wrapped or replaced" in caplog.text


@pytest.mark.parametrize("location", ["gzip", "conditional", "cached"])
def test_decorators_that_look_at_whole_answers_leave_streams_alone(make_application, location):
    headers = {"Accept-Encoding": "gzip, br"}
    for _ in range(2):
        visitor = stream_of(make_application, f"/{location}/?channel=a", headers=headers)
        assert visitor.status == 200
        assert visitor.headers["content-encoding"] == "identity"
        assert "content-length" not in visitor.headers


def test_middleware_that_looks_at_whole_answers_leaves_streams_alone(make_application, settings):
    """The wrapper's stream was an empty answer to middleware: it had an ETag, and was cached."""
    settings.MIDDLEWARE = [
        "django.middleware.cache.UpdateCacheMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.middleware.gzip.GZipMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]
    for _ in range(2):
        visitor = stream_of(make_application, headers={"Accept-Encoding": "gzip"})
        assert visitor.status == 200
        assert "etag" not in visitor.headers


@pytest.mark.parametrize("middleware", [ANONYMOUS, [*ANONYMOUS, f"{__name__}.known"]])
def test_login_required_is_respected(make_application, settings, middleware):
    settings.MIDDLEWARE = middleware
    if middleware is ANONYMOUS:
        visitor = answer_to(make_application, "/login-required/?channel=a")
        assert visitor.status == 302
        assert visitor.headers["location"].startswith("/log-in/?next=")
    else:
        assert stream_of(make_application, "/login-required/?channel=a").status == 200


@pytest.mark.parametrize("middleware", [ANONYMOUS, [*ANONYMOUS, f"{__name__}.known"]])
def test_permissions_of_rest_framework_are_respected(make_application, settings, middleware):
    settings.MIDDLEWARE = middleware
    headers = {"Accept": STREAM_TYPE}
    if middleware is ANONYMOUS:
        visitor = answer_to(make_application, "/restricted/?channel=a", headers=headers)
        assert visitor.status == 403
    else:
        visitor = stream_of(make_application, "/restricted/?channel=a", headers=headers)
        assert visitor.status == 200


def test_a_middleware_that_refuses_before_the_view_is_respected(make_application, settings, caplog):
    settings.MIDDLEWARE = [f"{MIDDLEWARE}.forbid"]
    visitor = answer_to(make_application)
    assert (visitor.status, visitor.body) == (403, b"not you")
    assert "does not hold" not in caplog.text


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("OPTIONS", 200), ("POST", 405), ("DELETE", 405)]
)
def test_methods_that_open_no_stream_are_answered(make_application, method, status):
    visitor = answer_to(make_application, method=method)
    assert (visitor.status, visitor.body, visitor.is_over) == (status, b"", True)


@pytest.fixture
def signals_seen() -> Iterator[list[str]]:
    seen: list[str] = []
    with ExitStack() as stack:
        for name, signal in {"started": request_started, "finished": request_finished}.items():

            def note(name=name, **_) -> None:
                seen.append(name)

            signal.connect(note, weak=False)
            stack.callback(signal.disconnect, note)
        yield seen


@pytest.mark.parametrize("make_application", [LANES["wrapper"], *ROUTED.values()])
def test_the_request_begins_and_ends_once_before_the_wrapper_holds_the_stream(
    make_application, signals_seen
):
    async def main() -> None:
        visitor = Visitor()
        visiting = visitor.begin(make_application())
        await visitor.wait_for(b"stream-open")
        assert signals_seen == ["started", "finished"]
        visitor.is_gone.set()
        await visiting
        assert signals_seen == ["started", "finished"]

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_what_is_no_request_passes_the_wrapper_as_it_is(kind):
    seen = []

    async def application(scope, receive, send) -> None:
        seen.append((scope, receive, send))

    passed = ({"type": kind, "extensions": {"mine": {}}}, object(), object())
    asyncio.run(EventStreamApplication(application)(*passed))
    assert all(found is given for found, given in zip(seen[0], passed, strict=True))


@pytest.mark.parametrize("make_application", ROUTED.values(), ids=ROUTED)
def test_under_a_router_of_channels_the_wrapper_holds_streams(make_application, caplog):
    assert stream_of(make_application).status == 200
    assert "does not hold" not in caplog.text


def test_a_client_that_leaves_as_django_ends_is_not_held():
    """Servers tell of it once; the wrapper waited for it for ever when Django had heard it."""

    async def leave_at_the_end(scope, receive, send) -> None:
        await django(scope, receive, send)
        visitor.is_gone.set()
        assert (await receive())["type"] == "http.disconnect"

    async def once(scope, receive, send) -> None:
        told = []

        async def receive_once():
            message = await receive()
            if message["type"] == "http.disconnect":
                if told:
                    await asyncio.get_running_loop().create_future()
                told.append(message)
            return message

        await wrapper(scope, receive_once, send)

    async def main() -> None:
        await asyncio.wait_for(visitor.visit(once), HEALTHY)
        assert visitor.body == b""

    django = ASGIHandler()
    wrapper = EventStreamApplication(leave_at_the_end)
    visitor = Visitor()
    asyncio.run(main())
