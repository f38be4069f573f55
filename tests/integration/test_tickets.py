"""Whoever comes back by tickets meets the rules of the application again within 300 seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIHandler
from django.core.signing import BadSignature, Signer
from django.urls import path
from rest_framework.permissions import BasePermission
from rest_framework.throttling import BaseThrottle

from django_eventstream import asgi
from django_eventstream.asgi import EventStreamApplication
from django_eventstream.cursors import split_ticket
from django_eventstream.views import events
from django_eventstream.viewsets import EventsViewSet
from django_eventstream.web.tickets import Tickets
from tests.services.deadline import HEALTHY
from tests.sse_parser import EventStreamParser
from tests.visitor import Visitor

BEGIN = 1_000_000


class Rules:
    """What the application would say now, how often it was asked, and what time it is."""

    now: float = BEGIN
    is_allowed = True
    asked = 0


class Permission(BasePermission):
    def has_permission(self, request, view):
        return Rules.is_allowed


class Throttle(BaseThrottle):
    def allow_request(self, request, view):
        return Rules.is_allowed


def expiring(request):
    """A view behind a URL that is signed, and good for some seconds."""
    try:
        end = Signer().unsign(request.GET["until"])
    except BadSignature as error:
        raise PermissionDenied from error
    if Rules.now > int(end):
        raise PermissionDenied
    return events(request)


def blocking(get_response):
    """Middleware that lets no one in from an address that was blocked; and counts."""

    def middleware(request):
        Rules.asked += 1
        if request.path == "/events/" and not Rules.is_allowed:
            raise PermissionDenied
        return get_response(request)

    return middleware


urlpatterns = [
    path("events/", events),
    path("expiring/", expiring),
    path("permission/", EventsViewSet.as_view(permission_classes=[Permission])),
    path("throttle/", EventsViewSet.as_view(throttle_classes=[Throttle])),
]

PATHS = {
    "a permission class": ("/permission/?channel=a", 403),
    "a throttle": ("/throttle/?channel=a", 429),
    "a URL that expires": ("/expiring/?channel=a&until={until}", 403),
    "an address that was blocked": ("/events/?channel=a", 403),
}


@pytest.fixture(autouse=True)
def rules(monkeypatch):
    for name in ("now", "is_allowed", "asked"):
        monkeypatch.setattr(Rules, name, getattr(Rules, name))
    monkeypatch.setattr(asgi, "Tickets", partial(Tickets, clock=lambda: Rules.now))


@pytest.fixture(autouse=True)
def project(settings):
    settings.ROOT_URLCONF = __name__
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "rest_framework"]
    settings.REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": []}
    settings.MIDDLEWARE = [f"{__name__}.blocking"]
    settings.EVENTSTREAM_STORAGE_CLASS = "django_eventstream.storage.MemoryStorage"
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = "tests.managers.TicketChannelManager"


class Client:
    """Comes back again and again, with the cursor of the stream before."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.cursor = ""
        self.application: Callable = EventStreamApplication(ASGIHandler())

    async def visit(self) -> int:
        """Opens a stream, if it may, and leaves it when it has its cursor; returns the status."""
        headers = {"last-event-id": self.cursor} if self.cursor else {}
        visitor = Visitor(self.target, headers=headers)
        visiting = visitor.begin(self.application)
        await asyncio.wait_for(visitor.is_reached.wait(), HEALTHY)
        if visitor.status == 200:
            await visitor.wait_for(b"stream-open")
            await visitor.wait_for(b"id: ")
            self.cursor = EventStreamParser().feed(visitor.body)[0].last_event_id
        visitor.is_gone.set()
        await asyncio.wait_for(visiting, HEALTHY)
        return visitor.status

    @property
    def has_ticket(self) -> bool:
        return bool(split_ticket(self.cursor)[1])


@pytest.mark.parametrize("seconds", [60, 300, 3_600])
@pytest.mark.parametrize("rule", PATHS)
def test_a_rule_is_asked_again_at_the_latest_300_seconds_after_the_first_ticket(
    rule, seconds, monkeypatch
):
    """Tickets were renewed at each return, and the rule was never asked again."""
    monkeypatch.setattr("tests.managers.TicketChannelManager.seconds", seconds)
    target, refusal = PATHS[rule]
    client = Client(target.format(until=Signer().sign(str(BEGIN + 1))))

    async def main() -> float:
        assert await client.visit() == 200
        Rules.is_allowed = False
        for _ in range(30):
            Rules.now += 20
            status = await client.visit()
            if status != 200:
                assert status == refusal
                break
            assert client.has_ticket
            assert Rules.asked == 1
        return Rules.now - BEGIN

    assert asyncio.run(main()) == min(seconds, 300) + 20
    assert Rules.asked == 2


def test_the_rules_are_asked_each_time_where_the_project_gives_no_tickets(settings):
    """With the default channel manager, those who were not logged in had tickets."""
    del settings.EVENTSTREAM_CHANNELMANAGER_CLASS
    client = Client("/events/?channel=a")

    async def main() -> list[int]:
        seen = [await client.visit(), await client.visit()]
        assert not client.has_ticket
        Rules.is_allowed = False
        return [*seen, await client.visit()]

    assert asyncio.run(main()) == [200, 200, 403]
    assert Rules.asked == 3


def test_django_begins_a_new_chain_when_it_lets_the_client_in_again():
    client = Client("/events/?channel=a")

    async def main() -> None:
        for _ in range(100):
            Rules.now += 20
            assert await client.visit() == 200

    asyncio.run(main())
    assert Rules.asked == 100 // 4


def test_a_client_that_waited_is_taken_back_once_others_have_shown_what_django_answers(settings):
    """All that came at once to a new process asked Django, one after the other."""
    settings.EVENTSTREAM_REQUEST_LIMIT = 1
    first = Client("/events/?channel=a")

    async def main() -> int:
        await first.visit()
        Rules.asked = 0
        crowd = [Client("/events/?channel=a") for _ in range(20)]
        application = EventStreamApplication(ASGIHandler())
        for client in crowd:
            client.cursor, client.application = first.cursor, application
        statuses = await asyncio.gather(*(client.visit() for client in crowd))
        assert statuses == [200] * 20
        return Rules.asked

    assert asyncio.run(main()) == 1
