"""The view set: which answer a client gets, by whose rules, and for which channels.

Streams through real servers are in `acceptance/test_drf.py`.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import types
from itertools import combinations
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.handlers.asgi import ASGIHandler
from django.template.loader import render_to_string
from django.test import Client
from django.urls import re_path, reverse
from rest_framework.settings import api_settings

from django_eventstream import asend_event
from django_eventstream.asgi import EventStreamApplication
from django_eventstream.hub.current import get_hub
from django_eventstream.web.responses import CACHE_CONTROL
from tests import settings as global_settings
from tests.services.deadline import HEALTHY
from tests.services.python import ROOT, manage
from tests.visitor import Visitor

LANES = {"plain": ASGIHandler, "wrapper": lambda: EventStreamApplication(ASGIHandler())}
STREAM, PAGE, JSON = "text/event-stream", "text/html", "application/json"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"
OURS = ["django_eventstream.renderers.SSEEventRenderer"]
OUR_PAGE = ["django_eventstream.renderers.BrowsableAPIEventStreamRenderer"]
USUAL = ["rest_framework.renderers.JSONRenderer", "rest_framework.renderers.BrowsableAPIRenderer"]


@pytest.fixture(autouse=True)
def project(settings):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "rest_framework"]
    settings.ROOT_URLCONF = "tests.drf"
    settings.EVENTSTREAM_STORAGE_CLASS = None
    settings.REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": []}


@pytest.fixture(params=LANES)
def lane(request):
    return LANES[request.param]


def answer(lane, path, accept=STREAM, headers=None, **options) -> Visitor:
    """What a client gets, up to the first bytes of a body."""

    async def main() -> Visitor:
        visitor = Visitor(path, headers={"accept": accept, **(headers or {})}, **options)
        visitor.scope["headers"] = [each for each in visitor.scope["headers"] if each[1]]
        visiting = visitor.begin(lane())
        await asyncio.wait_for(visitor.is_reached.wait(), HEALTHY)
        if visitor.body:
            visitor.is_gone.set()
        await asyncio.wait_for(visiting, HEALTHY)
        return visitor

    return asyncio.run(main())


def received(lane, path, sent, *, headers=None) -> list[str]:
    """The data that a client gets of what is sent, a list of (channel, type, data)."""

    async def main() -> Visitor:
        visitor = Visitor(path, headers=headers)
        visiting = visitor.begin(lane())
        await visitor.wait_for(b"stream-open")
        for channel, kind, data, *skipped in sent:
            await asend_event(channel, kind, data, *skipped)
        await visitor.wait_for(f"data: {json.dumps(sent[-1][2])}\n".encode())
        visitor.is_gone.set()
        await asyncio.wait_for(visiting, HEALTHY)
        assert get_hub().statistics().connections == 0
        return visitor

    lines = asyncio.run(main()).body.decode().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ") and line[6:]]


@pytest.mark.parametrize(
    ("accept", "query", "kind"),
    [
        (STREAM, "", STREAM),
        ("*/*", "", STREAM),
        ("", "", STREAM),
        ("text/*", "", STREAM),
        (PAGE, "", PAGE),
        (BROWSER, "", PAGE),
        (f"{STREAM}, */*;q=0.1", "", STREAM),
        # Not by substring: neither of them is one of ours.
        ("application/x-text/html", "", JSON),
        ("text/event-streams", "", JSON),
        (JSON, "", JSON),
        (BROWSER, "&format=text/event-stream", STREAM),
        (BROWSER, "&format=api_sse", PAGE),
        ("*/*", "&format=api_sse", PAGE),
        ("*/*", "&format=json", JSON),
    ],
)
def test_what_a_client_accepts_decides_what_it_gets(lane, accept, query, kind):
    got = answer(lane, f"/api/events/?channels=a{query}", accept)
    assert got.headers["content-type"].split(";")[0] == kind
    if kind == JSON:
        # Nothing that it accepts is there, or nothing in the format that it asked for.
        assert got.status == (404 if "format" in query else 406)
        assert list(json.loads(got.body)) == ["detail"]
    else:
        assert got.status == 200
        assert (b"stream-open" in got.body) == (kind == STREAM)
    assert "Accept" in got.headers["vary"]


@pytest.mark.parametrize(
    ("named", "streams", "shows"),
    [
        (None, True, True),
        (USUAL, True, True),
        ([*USUAL, *OURS, *OUR_PAGE], True, True),
        ([*USUAL, *OUR_PAGE, *OURS], True, True),
        # As 5.3.4 lets a project do without the page.
        ([*USUAL, *OURS], True, False),
        # No browsable API at all.
        (USUAL[:1], True, False),
    ],
)
def test_the_renderers_of_the_project_decide_whether_there_is_a_page(
    lane, settings, named, streams, shows
):
    configured = {} if named is None else {"DEFAULT_RENDERER_CLASSES": named}
    settings.REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": [], **configured}
    for accept in (STREAM, "*/*"):
        assert answer(lane, "/api/events/?channels=a", accept).headers["content-type"] == STREAM
    got = answer(lane, "/api/events/?channels=a", PAGE)
    assert got.status == (200 if shows else 406)
    assert b"eventstream-events" in got.body or not shows


def test_renderers_that_a_view_set_names_are_its_own(lane):
    got = answer(lane, "/api/withjson/?channels=b,a", JSON)
    assert json.loads(got.body) == {"channels": ["a", "b"], "messages_types": ["message"]}
    assert b"stream-open" in answer(lane, "/api/withjson/?channels=a", "*/*").body


@pytest.mark.parametrize(
    ("path", "channels"),
    [
        ("/api/events/?channels=a,%20b,", {"a", "b"}),
        ("/api/events/?channels=a&channels=b", {"a", "b"}),
        ("/api/events/a/", {"a"}),
        ("/api/events/a.b/", {"a.b"}),
        ("/api/events/ü:5,/", {"ü:5,"}),
        ("/api/ofclass/", {"a", "b"}),
        ("/api/ofconstructor/", {"a"}),
        ("/api/configured/", {"a", "b"}),
        ("/api/without-a-name/", {"a"}),
        # README of 5.3.4; there it raised.
        ("/api/instance/", {"a", "b"}),
        ("/fixed/", {"a"}),
        ("/rooms/a/", {"room-a"}),
        ("/v1/versioned/?channels=a", {"a"}),
        # As the plain view: what the channel manager finds.
        ("/api/events/?channel=a,b", {"a,b"}),
        ("/own/", {"a"}),
    ],
)
def test_channels_are_named_by_the_class_the_url_or_the_query(lane, path, channels):
    names = ["a", "b", "a.b", "a,b", "ü:5,", "room-a"]
    sent = [(name, "message", name) for name in names if name in channels]
    others = [(name, "message", name) for name in names if name not in channels]
    assert received(lane, path, others + sent) == [name for _, _, name in sent]


@pytest.mark.parametrize("accept", [STREAM, "*/*", PAGE])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/ofclass/?channels=c", "Conflicting channels: the view set and the query name them."),
        ("/api/ofclass/c/", "Conflicting channels: the view set and the URL name them."),
        ("/api/events/c/?channels=c", "Conflicting channels: the URL and the query name them."),
        ("/rooms/a/?channels=c", "Conflicting channels: the URL and the query name them."),
        (
            "/api/configured/c/?channels=c",
            "Conflicting channels: the view set and the URL and the query name them.",
        ),
        (
            "/api/configured/?messages_types=c",
            "Conflicting messages_types: the view set and the query name them.",
        ),
    ],
)
def test_the_ways_to_name_channels_exclude_each_other(lane, path, said, accept):
    got = answer(lane, path, accept)
    assert got.status == 400
    if accept == PAGE:
        assert said in got.body.decode()
        assert b"eventstream-events" not in got.body
    else:
        assert got.headers["content-type"] == JSON
        assert json.loads(got.body) == {"error": said}


def test_what_is_wrong_with_the_channels_the_stream_says(lane, settings):
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = "tests.managers.StrictChannelManager"
    for path, said in [
        ("/api/events/", "No channels specified"),
        ("/api/events/?channels=,", "No channels specified"),
        ("/api/events/staff-room/", "Permission denied to channels: staff-room"),
        (f"/api/events/?channels={','.join('abcdefghijk')}", "Channel limit exceeded"),
    ]:
        got = answer(lane, path)
        assert got.status == 200
        assert b"event: stream-error" in got.body
        assert said in got.body.decode()


def test_a_stream_has_all_types_and_the_page_shows_those_that_are_named(lane):
    """As in 5.3.4: a stream that left events out would be another one, with the same cursors."""
    sent = [("a", "info", 1), ("a", "other", 2)]
    assert received(lane, "/api/ofclass/", sent) == [1, 2]
    assert received(lane, "/api/events/a/?messages_types=info", sent) == [1, 2]
    shown = answer(lane, "/api/events/a/?messages_types=info,%20other", PAGE).body.decode()
    assert '["info", "other"]</script>' in shown
    assert '["message"]</script>' in answer(lane, "/api/events/a/", PAGE).body.decode()


@pytest.mark.django_db(transaction=True)
def test_the_user_whom_the_framework_finds_is_the_one_who_reads(lane, settings):
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = "tests.managers.StrictChannelManager"
    anna = get_user_model().objects.create(username="anna")
    headers = {"Authorization": "Name anna"}
    path = "/api/named/private-anna/"
    assert b"Permission denied" in answer(lane, path).body
    sent = [("private-anna", "message", 1, [anna.pk]), ("private-anna", "message", 2)]
    assert received(lane, path, sent, headers=headers) == [2]


@pytest.mark.django_db(transaction=True)
def test_authentication_and_permission_classes_refuse(lane):
    get_user_model().objects.create(username="anna")
    for headers, said in [
        ({}, "Authentication credentials were not provided."),
        ({"Authorization": "Name nobody"}, "Nobody has this name."),
    ]:
        got = answer(lane, "/api/private/a/", headers=headers)
        assert (got.status, got.headers["www-authenticate"]) == (401, "Name")
        assert json.loads(got.body) == {"detail": said}
        page = answer(lane, "/api/private/a/", PAGE, headers=headers)
        assert page.status == 401
        assert said in page.body.decode()
    got = answer(lane, "/api/private/a/", headers={"Authorization": "Name anna"})
    assert b"stream-open" in got.body


def test_throttle_classes_refuse(lane):
    cache.clear()
    statuses = [answer(lane, "/api/throttled/a/").status for _ in range(3)]
    cache.clear()
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize(
    "path",
    [
        "/api/events/a/",
        "/api/events/a/?channels=b",
        "/api/private/a/",
        "/api/events/a/?format=nonsense",
    ],
)
@pytest.mark.parametrize("accept", [STREAM, BROWSER])
def test_no_answer_may_be_cached(lane, path, accept):
    """Pages and errors, which depend on who asks, said nothing to caches."""
    assert answer(lane, path, accept).headers["cache-control"] == CACHE_CONTROL


def test_methods(lane):
    for method, status in [("HEAD", 200), ("POST", 405), ("PUT", 405), ("DELETE", 405)]:
        got = answer(lane, "/api/events/a/", method=method)
        assert (got.status, got.headers["allow"]) == (status, "GET, HEAD, OPTIONS")
    head = answer(lane, "/api/events/a/", method="HEAD")
    assert head.headers["content-type"] == STREAM
    assert head.headers["cache-control"] == CACHE_CONTROL
    assert head.body == b""
    metadata = answer(lane, "/api/events/a/", method="OPTIONS")
    assert json.loads(metadata.body)["renders"] == [STREAM, PAGE]


def test_pages_of_other_sites_may_ask_without_credentials_and_read_what_was_wrong(lane, settings):
    settings.EVENTSTREAM_ALLOW_ORIGINS = ["https://app.example"]
    headers = {"Origin": "https://app.example"}
    asking = {**headers, "Access-Control-Request-Method": "GET"}
    asked = answer(lane, "/api/private/a/", "*/*", method="OPTIONS", headers=asking)
    assert asked.status == 200
    for got in (asked, answer(lane, "/api/private/a/", headers=headers)):
        assert got.headers["access-control-allow-origin"] == "https://app.example"
        assert "Last-Event-ID" in got.headers["access-control-allow-headers"]
        assert "Origin" in got.headers["vary"]


def test_nothing_of_a_request_is_markup_on_the_page():
    evil = "<img src=x onerror=alert(1)>\"'</script>"
    query = {"channels": evil, "messages_types": evil, "other": evil}
    body = Client().get("/api/events/", query, headers={"Accept": PAGE}).content.decode()
    assert "<img" not in body
    assert body.count("</script>") == body.count("<script")
    body = Client().get(f"/api/ofclass/{evil[:4]}/", query, headers={"Accept": PAGE})
    assert "<img" not in body.content.decode()


def test_the_page_says_where_its_stream_is():
    for path, url in [
        ("/api/events/?channels=a,b&format=api_sse", "/api/events/?channels=a%2Cb"),
        ("/api/ofclass/", "/api/ofclass/"),
        ("/api/events/a%3Fb%23%25c/", "/api/events/a%3Fb%23%25c/"),
        ("/suffixed.api_sse?channels=a", "/suffixed/?channels=a"),
    ]:
        response = Client().get(path, headers={"Accept": BROWSER})
        assert response.context["stream"]["url"] == url


def test_a_template_of_a_project_finds_what_that_of_5_3_4_was_given(tmp_path, settings):
    directory = tmp_path / "django_eventstream"
    directory.mkdir()
    name = "browsable-api-eventstream.html"
    (directory / name).write_text("[{{ channels }}|{{ messages_types }}|{{ error }}]")
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [str(tmp_path)]}]
    assert render_to_string(f"django_eventstream/{name}", {}) == "[||]"
    for path, text in [
        ("/api/ofclass/", "[a, b|message, info|None]"),
        ("/api/ofclass/c/", "[||Conflicting channels: the view set and the URL name them.]"),
    ]:
        assert Client().get(path, headers={"Accept": PAGE}).content.decode() == text


def test_a_template_of_a_project_may_replace_blocks_of_ours(tmp_path, settings):
    (tmp_path / "django_eventstream").mkdir()
    name = "django_eventstream/browsable-api-eventstream.html"
    (tmp_path / name).write_text(
        f"{{% extends '{name}' %}}{{% block branding %}}Ours{{% endblock %}}"
    )
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [str(tmp_path)]}]
    body = Client().get("/api/ofclass/", headers={"Accept": PAGE}).content.decode()
    assert "Ours" in body
    assert "eventstream-events" in body


def test_the_names_of_urls_are_those_of_5_3_4():
    assert reverse("events-list") == "/api/events/"
    assert reverse("events-channel", kwargs={"channel": "a"}) == "/api/events/a/"


def test_other_views_of_the_project_are_left_alone():
    assert Client().get("/plain/").json() == {"nothing": "of ours"}
    assert api_settings.DEFAULT_RENDERER_CLASSES[0].format == "json"


@pytest.mark.parametrize("module", ["viewsets", "renderers"])
def test_without_the_framework_only_these_modules_say_what_is_missing(module):
    code = f"""
import sys
sys.modules["rest_framework"] = None
import django
django.setup()
import django_eventstream.urls, django_eventstream.asgi, django_eventstream.checks.configuration
try:
    import django_eventstream.{module}
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install djangorestframework" in done.stdout


def test_no_two_ways_of_the_lanes_differ():
    """Each answer is the same, header by header, whoever holds the stream."""
    for path in ("/api/events/?channels=a", "/api/ofclass/", "/api/ofclass/?channels=a"):
        made = [answer(lane, path).headers for lane in LANES.values()]
        for one, other in combinations(made, 2):
            assert one == other


def test_drf_spectacular_describes_every_form_of_a_view_set_without_a_warning():
    """It could not guess a serializer, left the view out, and gave two operations one id."""
    apps = ["rest_framework", "drf_spectacular"]
    schema = manage(
        *("spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json"),
        settings={
            "INSTALLED_APPS": [*global_settings.INSTALLED_APPS, *apps],
            "ROOT_URLCONF": "tests.schema_urls",
            "REST_FRAMEWORK": {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"},
        },
    )
    paths = json.loads(schema)["paths"]
    assert len(paths) == 18
    for path in paths.values():
        assert list(path["get"]["responses"]["200"]["content"]) == [STREAM]
    channel = paths["/api/events/{channel}/"]["get"]
    assert [each["name"] for each in channel["parameters"]] == [
        "Last-Event-ID", "channel", "channels", "lastEventId",
    ]  # fmt: skip


def test_the_code_of_the_guide_runs(lane, settings):
    text = (Path(ROOT) / "docs/howto/drf.md").read_text()
    names: dict = {"__name__": "guide"}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(block, names)
    names["urlpatterns"] += [
        re_path("^own/(?P<project>[0-9]+)/$", names["ProjectEvents"].as_view()),
        re_path("^class/$", names["NewsViewSet"].as_view()),
    ]
    settings.ROOT_URLCONF = types.ModuleType("guide")
    settings.ROOT_URLCONF.urlpatterns = names["urlpatterns"]
    for url in ("/api/events/?channels=news", "/api/events/news/", "/api/news/", "/own/5/"):
        assert b"stream-open" in answer(lane, url).body
    assert answer(lane, "/class/").status == 403
