"""What users of 5.3.4 suffered from, in their words, by issue number: what needs no server."""

from __future__ import annotations

import asyncio
import logging
import re
from importlib import metadata

import pytest
from channels.routing import ProtocolTypeRouter
from django.contrib.staticfiles import finders
from django.core.checks import run_checks
from django.core.handlers.asgi import ASGIHandler
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_eventstream import asend_event, get_current_event_id, send_event, send_events
from django_eventstream.channelmanager import DefaultChannelManager
from django_eventstream.models import Event as Row
from django_eventstream.viewsets import configure_events_view_set
from tests.outlets import close_outlets
from tests.services.deadline import HEALTHY
from tests.sse_parser import EventStreamParser
from tests.visitor import Visitor

pytestmark = pytest.mark.django_db(transaction=True)
DISTRIBUTION = "django-reliable-eventstream"


class LooseCursor(DefaultChannelManager):
    """Where the mouse is, nobody needs to know later."""

    def is_channel_reliable(self, channel: str) -> bool:
        return channel != "mouse"


OfRest = configure_events_view_set(channels=["a"])
urlpatterns = [path("api/", OfRest.as_view({"get": "list"}))]


@pytest.fixture
def behind_a_proxy(settings):
    settings.GRIP_URL = "http://127.0.0.1:1"
    yield
    close_outlets()


def read_once(sent: list[tuple], application=None, where: str = "/events/?channel=a", **options):
    """What a client gets of what is sent while it listens; it leaves after the last."""

    async def main() -> Visitor:
        visitor = Visitor(where, **options)
        visiting = visitor.begin(application or ASGIHandler())
        await visitor.wait_for(b"stream-open")
        for arguments in sent:
            await asend_event(*arguments)
        await visitor.wait_for(f"data: {sent[-1][2]}\n".encode())
        visitor.is_gone.set()
        await asyncio.wait_for(visiting, HEALTHY)
        return visitor

    return asyncio.run(main())


def test_issues_18_62_174_a_proxy_asks_seldom_and_not_for_all_connections_at_once(behind_a_proxy):
    """5.3.4 had it ask every two minutes, for each connection, at an address of its own."""
    send_event("a", "message", 1)
    proxied = Client(headers={"Grip-Sig": "of a proxy"})
    links = {proxied.get("/events/?channel=a")["Grip-Link"] for _ in range(20)}
    assert len({re.match("<(.*?)>", link)[1] for link in links}) == 1
    periods = {int(re.search(r"timeout=(\d+)", link)[1]) for link in links}
    assert len(periods) > 5
    assert min(periods) > 1_000


def test_issues_10_36_114_136_a_view_needs_no_grip_middleware(behind_a_proxy, settings):
    assert not [name for name in settings.MIDDLEWARE if "grip" in name.lower()]
    response = Client().get("/rooms/x/", headers={"Grip-Sig": "of a proxy"})
    assert response["Grip-Hold"] == "stream"
    assert "events-room-x" in response["Grip-Channel"]


def test_issues_7_58_95_a_proxy_that_cannot_be_reached_by_its_setting_is_told_of(settings):
    settings.GRIP_URL = "pushpin:5561"
    assert "eventstream.E020" in {message.id for message in run_checks()}


def test_issue_103_a_send_costs_two_statements():
    send_event("a", "message", 0)
    with CaptureQueriesContext(connection) as captured:
        send_event("a", "message", 1)
    noise = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE")
    asked = [query["sql"] for query in captured if not query["sql"].startswith(noise)]
    assert len(asked) <= 2, asked


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*", "text/*"])
def test_issues_87_138_149_153_157_169_178_a_view_set_streams_to_who_accepts_it(settings, accept):
    settings.ROOT_URLCONF = __name__
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "rest_framework"]
    settings.REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": []}
    sent = [("a", "message", 1)]
    visitor = read_once(sent, where="/api/", headers={"accept": accept})
    assert visitor.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize("bad", ["a\ndata: forged", "a\rid: 9", "a\r\n\r\nevent: b", "a\0"])
def test_issue_185_nobody_writes_lines_of_their_own_into_a_stream(bad):
    with pytest.raises(ValueError, match="type"):
        send_event("a", bad, "x")
    sent = [("a", "message", bad, None, True, False), ("a", "message", 2)]
    read = EventStreamParser().feed(read_once(sent).body)
    assert [message.type for message in read] == ["stream-open", "message", "message"]
    assert [message.last_event_id for message in read] == ["a:0", "a:1", "a:2"]


def test_issues_42_56_59_66_100_116_119_144_153_170_175_nothing_is_pinned_from_above():
    needed = [line for line in metadata.requires(DISTRIBUTION) if "extra ==" not in line]
    assert needed
    for line in needed:
        assert not re.search(r"<|==|~=", line.partition(";")[0]), line
        assert not re.match("six|werkzeug", line, re.IGNORECASE), line


@pytest.mark.parametrize("field", ["BigAutoField", "AutoField"])
def test_issue_75_no_primary_key_is_warned_of_and_no_migration_is_missing(settings, field):
    settings.DEFAULT_AUTO_FIELD = f"django.db.models.{field}"
    assert "models.W042" not in {message.id for message in run_checks()}
    call_command("makemigrations", "django_eventstream", check=True, dry_run=True, verbosity=0)


def test_issue_134_html_for_htmx_is_sent_as_it_is():
    html = "<li>one</li>\n<li>two</li>"
    body = read_once([("a", "row", html, None, True, False), ("a", "row", 2)]).body
    assert b"event: row\ndata: <li>one</li>\ndata: <li>two</li>\nid: a:1\n" in body


def test_issues_14_29_30_92_127_one_send_reaches_every_address_of_a_channel():
    sent = [("room-x", "message", 1)]
    for where in ("/rooms/x/", "/events/?channel=room-x"):
        assert b"\n\ndata: 1\n" in read_once(sent, where=where).body


def test_issue_102_the_client_is_served_from_static_files():
    assert finders.find("django_eventstream/reconnecting-eventsource.js")
    assert finders.find("django_eventstream/reconnecting-eventsource.mjs")


def test_issue_146_a_send_writes_no_log(caplog):
    with caplog.at_level(logging.INFO, logger="django_eventstream"):
        send_events([("a", "message", n) for n in range(10)])
    assert caplog.records == []


def test_issues_31_59_80_106_a_stream_works_within_the_router_of_channels():
    application = ProtocolTypeRouter({"http": ASGIHandler()})
    assert b"data: 1\n" in read_once([("a", "message", 1)], application).body


def test_pull_request_186_an_event_of_a_channel_that_is_not_stored_arrives_all_the_same(settings):
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = f"{__name__}.LooseCursor"
    read_once([("mouse", "message", 1)], where="/events/?channel=mouse")
    assert not Row.objects.filter(channel="mouse").exists()


def test_issues_182_184_a_page_made_from_data_misses_nothing_sent_since():
    """What a snapshot is for; there is no hook that sends one."""
    send_event("a", "message", 1)
    position = get_current_event_id(["a"])
    send_event("a", "message", 2)
    visitor = read_once([("a", "message", 3)], where=f"/events/?channel=a&lastEventId={position}")
    assert re.findall(rb"data: (\d)\n", visitor.body) == [b"2", b"3"]
