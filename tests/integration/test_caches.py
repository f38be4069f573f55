"""No cache keeps an answer of ours, and no middleware makes another one of it."""

from __future__ import annotations

import gzip
import re
import time

import jwt
import pytest
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpResponse
from django.test import Client, RequestFactory
from django.urls import path
from django.utils.cache import add_never_cache_headers, patch_cache_control
from django.views.decorators.cache import cache_page

from django_eventstream import EventRequest, get_events, send_event, urls, utils
from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.storage import DjangoModelStorage
from django_eventstream.views import events
from django_eventstream.views.recover import recover
from django_eventstream.viewsets import EventsViewSet
from tests.outlets import close_outlets
from tests.proxied import MembersOnly

KEY = "k" * 32
UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"
CONDITIONAL = "django.middleware.http.ConditionalGetMiddleware"
GZIP = "django.middleware.gzip.GZipMiddleware"
DIRECTIVES = {"private", "no-store", "no-cache", "no-transform"}
pytestmark = pytest.mark.django_db(transaction=True)

# With `cache_page()`, as somebody may wrap all views of a site.
urlpatterns = [
    path("events/", cache_page(60)(events)),
    path("events/_next/", cache_page(60)(recover), name="eventstream-next"),
    path("viewset/", EventsViewSet.as_view()),
]


class Refusing(MembersOnly):
    """Answers as Django's shortcuts do."""

    def get_channels_for_request(self, request, view_kwargs):
        raised = {"missing": Http404, "denied": PermissionDenied, "odd": SuspiciousOperation}
        for word in raised.keys() & request.GET.keys():
            raise raised[word]
        return super().get_channels_for_request(request, view_kwargs)


class AwayStorage(DjangoModelStorage):
    def get_position(self, channels):
        raise StorageUnavailableError("away")


def overriding(change):
    def factory(get_response):
        def middleware(request):
            response = get_response(request)
            change(response)
            return response

        return middleware

    return factory


def compress(get_response):
    """As middleware of other packages does, which may look into a copy that Django keeps."""

    def middleware(request):
        assert "gzip" in request.headers["Accept-Encoding"]
        response = get_response(request)
        if "gzip" in request.headers["Accept-Encoding"]:
            response.content = gzip.compress(response.content)
            response["Content-Encoding"] = "gzip"
        return response

    return middleware


make_public = overriding(lambda response: patch_cache_control(response, public=True))
set_public = overriding(lambda response: response.headers.__setitem__("Cache-Control", "public"))
set_etag = overriding(lambda response: response.headers.__setitem__("ETag", '"1"'))
never_cache = overriding(add_never_cache_headers)


@pytest.fixture(autouse=True)
def keyed(settings):
    settings.GRIP_URL = f"http://127.0.0.1:1?iss=me&key={KEY}"
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = f"{__name__}.Refusing"
    cache.clear()
    yield
    cache.clear()
    close_outlets()


@pytest.fixture(params=["pair", "cache_page", "made public", "set public"])
def cached(request, settings):
    """A site with caching, in each way that Django has."""
    if request.param == "cache_page":
        settings.ROOT_URLCONF = __name__
    else:
        between = {
            "made public": [f"{__name__}.make_public"],
            "set public": [f"{__name__}.set_public"],
        }.get(request.param, [])
        settings.MIDDLEWARE = [UPDATE, *between, *settings.MIDDLEWARE, FETCH]


def signature() -> str:
    return jwt.encode({"iss": "pushpin", "exp": time.time() + 60}, KEY)


def ask(client: Client, address: str, **headers: str):
    return client.get(address, headers={"Grip-Sig": signature(), **headers})


def last_of(hold) -> str:
    """The `Grip-Last` of a connection that was held by an answer."""
    named = re.findall(r"([^\s,;]+); prev-id=([^;,]+)", hold["Grip-Channel"])
    return ", ".join(f"{name}; last-id={last_id}" for name, last_id in named)


def recover_from(hold, **headers: str):
    """The proxy asks, without any of the client's own headers."""
    address = re.match("<(.*?)>", hold["Grip-Link"])[1]
    return ask(Client(), address, **{"Grip-Last": last_of(hold), **headers})


def member(name: str) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create(username=name))
    return client


def directives(response) -> set[str]:
    return set(response["Cache-Control"].split(", "))


def test_the_recovery_address_is_never_answered_from_a_cache(cached):
    """Its path is the same for all: somebody had got another's private events, and none of his."""
    holds = {name: ask(member(name), f"/events/?channel=own-{name}") for name in ("ann", "bob")}
    for name in holds:
        send_event(f"own-{name}", "message", f"for {name}")
    for _ in range(2):
        for name, hold in holds.items():
            recovered = recover_from(hold)
            assert f"for {name}" in recovered.content.decode()
            assert recovered.content.count(b"for ") == 1
            assert f"events-own-{name}; " in recovered["Grip-Channel"]


def test_a_stream_is_never_answered_from_a_cache(cached):
    """The same address for two users, and for one who logs out; and the news of a minute later."""
    ann, url = member("ann"), "/events/?channel=own-ann&lastEventId=own-ann:0"
    send_event("own-ann", "message", "for ann")
    assert b"for ann" in ask(ann, url).content
    assert b'"forbidden"' in ask(member("bob"), url).content
    send_event("own-ann", "message", "later")
    assert b"later" in ask(ann, url).content
    ann.logout()
    assert b'"forbidden"' in ask(ann, url).content


@pytest.mark.parametrize("etag", [False, True])
@pytest.mark.parametrize(
    "headers",
    [
        {"If-None-Match": "*"},
        {"If-None-Match": '"1"'},
        {"If-Match": '"another"'},
        {"If-Modified-Since": "Wed, 21 Oct 2099 07:28:00 GMT"},
        {"If-Unmodified-Since": "Wed, 21 Oct 2009 07:28:00 GMT"},
    ],
)
def test_a_condition_never_turns_a_hold_into_something_else(settings, headers, etag):
    """Not even if another middleware gives it a tag, or takes away what it says to caches."""
    tagging = [f"{__name__}.set_etag", f"{__name__}.set_public"] if etag else []
    settings.MIDDLEWARE = [CONDITIONAL, *tagging, *settings.MIDDLEWARE]
    hold = ask(Client(), "/events/?channel=a", **headers)
    send_event("a", "message", 1)
    recovered = recover_from(hold, **headers)
    for response in (hold, recovered):
        assert (response.status_code, response["Grip-Hold"]) == (200, "stream")
        assert "Grip-Channel" in response
        assert etag or "ETag" not in response
    assert b"data: 1" in recovered.content


@pytest.mark.parametrize("middleware", [GZIP, f"{__name__}.compress"])
def test_a_body_for_a_proxy_is_never_compressed(settings, middleware):
    """What a recovery was answered came compressed, in the middle of a stream that was not."""
    settings.MIDDLEWARE = [middleware, *settings.MIDDLEWARE]
    hold = ask(Client(), "/events/?channel=a", **{"Accept-Encoding": "gzip, br"})
    send_event("a", "message", "x" * 5_000)
    recovered = recover_from(hold, **{"Accept-Encoding": "gzip, br"})
    for response in (hold, recovered):
        assert response.get("Content-Encoding", "identity") == "identity"
        assert "no-transform" in directives(response)
    assert b"x" * 5_000 in recovered.content


@pytest.mark.parametrize(
    ("middleware", "left"),
    [("never_cache", DIRECTIVES), ("make_public", DIRECTIVES - {"private"})],
)
def test_middleware_that_adds_to_what_caches_are_told_leaves_no_store(settings, middleware, left):
    settings.MIDDLEWARE = [f"{__name__}.{middleware}", *settings.MIDDLEWARE]
    assert directives(ask(Client(), "/events/?channel=a")) >= left


def answers(settings) -> dict[str, HttpResponse]:
    """One of each kind."""
    client, sig = Client(), {"Grip-Sig": signature()}
    hold = ask(client, "/events/?channel=a")
    gone = get_user_model().objects.create(username="gone")
    lost = Client()
    lost.force_login(gone)
    lost_hold = ask(lost, "/events/?channel=own-gone")
    gone.delete()
    made = {
        "hold": hold,
        "recovery": recover_from(hold),
        "recovery of nothing": ask(client, "/events/_next/"),
        "recovery of somebody deleted": recover_from(lost_hold),
        "recovery at the stream": ask(client, "/events/", **{"Grip-Last": last_of(hold)}),
        "no proxy": client.get("/events/_next/"),
        "the predecessor's": ask(client, "/events/?channel=a&link=next&es-meta=x"),
        "no signature": client.get("/events/?channel=a&link=next&es-meta=x"),
        "WSGI": client.get("/events/?channel=a"),
        "forbidden": ask(client, "/events/?channel=own-ann"),
        "no channels": ask(client, "/events/"),
        "turned away": client.get("/events/?channel=a", headers={"Last-Event-ID": "error"}),
        "HEAD": client.head("/events/?channel=a", headers=sig),
        "OPTIONS": client.options("/events/?channel=a"),
        "POST": client.post("/events/?channel=a"),
        "POST of a recovery": client.post("/events/_next/"),
    }
    settings.ROOT_URLCONF = __name__
    for url in ("/events/", "/viewset/"):
        for word in ("missing", "denied", "odd"):
            made[f"{word} {url}"] = ask(client, f"{url}?{word}")
        fields = "&channel=a" * (settings.DATA_UPLOAD_MAX_NUMBER_FIELDS + 1)
        made[f"too much {url}"] = ask(client, f"{url}?{fields}")
    settings.EVENTSTREAM_STORAGE_CLASS = f"{__name__}.AwayStorage"
    made["no log"] = ask(client, "/events/?channel=a")
    made["no log for a recovery"] = recover_from(hold)
    settings.GRIP_PROXY_REQUIRED = True
    made["a proxy is required"] = client.get("/events/?channel=a")
    return made


def test_every_answer_says_that_nobody_may_keep_it(settings):
    """Those of the recovery address said nothing, and Varnish kept them for two minutes."""
    made = answers(settings)
    assert {name: directives(response) for name, response in made.items()} == dict.fromkeys(
        made, DIRECTIVES
    )
    statuses = {name: response.status_code for name, response in made.items()}
    assert {*statuses.values()} >= {200, 400, 403, 404, 405, 501, 503}
    for url in ("/events/", "/viewset/"):
        answered = [statuses[f"{word} {url}"] for word in ("missing", "denied", "odd", "too much")]
        assert answered == [404, 403, 400, 400]


@pytest.mark.parametrize("is_proxied", [False, True])
def test_an_answer_by_hand_says_that_nobody_may_keep_it(is_proxied):
    headers = {"Grip-Sig": signature()} if is_proxied else {}
    request = RequestFactory().get("/?channel=a", headers=headers)
    request.resolver_match = None
    response = get_events(EventRequest(request)).to_grip_response(request)
    assert ("Grip-Hold" in response) == is_proxied
    assert directives(response) == DIRECTIVES


def test_the_helpers_of_django_eventstream_5_say_it_as_well():
    with pytest.warns(DeprecationWarning, match="django_eventstream"):
        assert directives(utils.sse_error_response("forbidden", "no")) == DIRECTIVES
    headers: dict[str, str] = {}
    with pytest.warns(DeprecationWarning, match="django_eventstream"):
        utils.add_default_headers(headers, RequestFactory().get("/"))
    assert set(headers["Cache-Control"].split(", ")) == DIRECTIVES


def test_every_address_of_ours_is_here():
    """A new view must be among the answers above."""
    assert {entry.callback for entry in urls.urlpatterns} == {events, recover}
