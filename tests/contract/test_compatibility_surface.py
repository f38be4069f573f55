"""What a project that comes from django-eventstream 5.3.4 imports and calls: every name and form.

Each test or parameter names a row of that surface, and its section in the checklist. What is
different is in `docs/howto/upgrading.md`.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import include

import django_eventstream
from django_eventstream import (
    EventPermissionError,
    EventRequest,
    EventResponse,
    channel_permission_changed,
    get_current_event_id,
    get_events,
    models,
    outbox,
    send_event,
    utils,
)
from django_eventstream.backends import get_channel_manager, get_storage
from django_eventstream.channelmanager import DefaultChannelManager
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.exceptions import PublishError
from django_eventstream.publishers.base import Publisher
from django_eventstream.sse import PADDING
from django_eventstream.storage import DjangoModelStorage, EventDoesNotExist
from tests.services.deadline import wait_until
from tests.sse_parser import EventStreamParser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def log(sqlite_only):
    with sqlite_only.as_default():
        yield get_storage()


@pytest.fixture
def history(log):
    for n in range(5):
        send_event("user:5", "message", {"n": n})
    send_event("b", "update", "ready text", json_encode=False)


def get(query: str = "", **headers: str):
    return RequestFactory().get(f"/events/{query}", headers=headers or None)


def signature_of(path: str) -> list[str]:
    """Names of the arguments, with their defaults."""
    module, _, rest = path.partition(".")
    found = import_module(f"django_eventstream.{module}")
    for name in rest.split("."):
        found = getattr(found, name)
    return [
        str(parameter.replace(annotation=parameter.empty))
        for parameter in inspect.signature(found).parameters.values()
    ]


# 1.1 The package


def test_1_1_the_import_name_the_app_label_and_the_app_config():
    config = apps.get_app_config("django_eventstream")
    assert type(config).__module__ == "django_eventstream.apps"
    assert type(config).__name__ == "DjangoEventstreamConfig"
    assert config.name == "django_eventstream"


def test_1_1_it_works_without_channels_redis_rest_framework_and_grip_middleware(tmp_path):
    """Every module but those that are for one of them can be imported where they are missing."""
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("channels", "redis", "rest_framework", "channels_redis"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from django.conf import settings
settings.configure(INSTALLED_APPS=["django_eventstream"], ROOT_URLCONF="django_eventstream.urls")
import django
django.setup()
from django.test import RequestFactory
from django_eventstream.views import events
assert events(RequestFactory().get("/")).status_code == 400
import django_eventstream.api, django_eventstream.eventstream, django_eventstream.asgi
import django_eventstream.storage.orm, django_eventstream.publishers.grip
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# 1.2 Names at the top


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        (
            "api.send_event",
            "channel event_type data skip_user_ids=None async_publish=True json_encode=True",
        ),
        ("eventstream.send_event", "channel event_type data skip_user_ids=None async_publish=True"
                                   " json_encode=True"),
        ("eventstream.get_events", "request limit=100 user=None"),
        ("eventstream.get_current_event_id", "channels"),
        ("eventstream.channel_permission_changed", "user channel"),
        ("eventrequest.EventRequest", "http_request=None channel_limit=10 view_kwargs=None"),
        (
            "eventrequest.EventRequest.apply_http_request",
            "self http_request channel_limit view_kwargs",
        ),
        ("eventresponse.EventResponse.to_grip_response", "self http_request"),
        ("channelmanager.ChannelManagerBase.get_channels_for_request", "self request view_kwargs"),
        ("channelmanager.ChannelManagerBase.can_read_channel", "self user channel"),
        ("channelmanager.ChannelManagerBase.is_channel_reliable", "self channel"),
        ("channelmanager.DefaultChannelManager.can_read_channel", "self user channel"),
        ("exceptions.EventPermissionError", "message channels=None"),
        ("eventstream.EventPermissionError", "message channels=None"),
        ("storage.StorageBase.append_event", "self channel event_type data"),
        ("storage.StorageBase.get_events", "self channel last_id limit=100"),
        ("storage.StorageBase.get_current_id", "self channel"),
        ("storage.EventDoesNotExist", "message current_id"),
        ("storage.DjangoModelStorage.append_event", "self channel event_type data"),
        ("storage.DjangoModelStorage.get_events", "self channel last_id limit=100"),
        ("storage.DjangoModelStorage.get_current_id", "self channel"),
        ("storage.RedisStorage.append_event", "self channel event_type data"),
        ("storage.RedisStorage.get_events", "self channel last_id limit=100"),
        ("storage.RedisStorage.get_current_id", "self channel"),
        ("models.EventCounter.get_or_create", "name"),
        ("views.events", "request **kwargs"),
        ("views.stream", "event_request listener"),
        ("utils.sse_encode_event", "event_type data event_id=None escape=False json_encode=False"),
        ("utils.sse_encode_error", "condition text extra=None"),
        ("utils.sse_error_response", "condition text extra=None"),
        ("utils.make_id", "ids"),
        ("utils.parse_last_event_id", "s"),
        ("utils.build_id_escape", "s"),
        ("utils.get_storage", ""),
        ("utils.get_channelmanager", ""),
        ("utils.load_class", "name"),
        ("utils.get_class", "name"),
        ("utils.get_class_from_setting", "setting_name default=None"),
        ("utils.add_default_headers", "headers request"),
        ("utils.find_related_origin", "request cors_origins"),
        ("utils.get_cors_from_settings", ""),
        ("utils.augment_cors_headers", "headers request"),
    ],
)  # fmt: skip
def test_1_2_and_1_3_a_path_is_there_with_its_arguments(path, arguments):
    assert signature_of(path) == arguments.split()


@pytest.mark.parametrize(
    "name",
    [
        "EventPermissionError",
        "EventRequest",
        "EventResponse",
        "channel_permission_changed",
        "get_current_event_id",
        "get_events",
        "send_event",
    ],
)
def test_1_2_a_name_is_at_the_top(name):
    assert callable(getattr(django_eventstream, name))


def test_1_2_urls_are_included_as_a_module_and_as_a_string():
    by_module, by_text = include(django_eventstream.urls), include("django_eventstream.urls")
    assert by_module[0] is by_text[0]
    from_text = by_text[0].urlpatterns[0]
    assert str(from_text.pattern) == ""
    assert from_text.callback is django_eventstream.urls.events


def test_1_2_send_event_takes_its_arguments_by_position(log):
    send_event("a", "t", {"x": 1}, ["7", 8, 9], True, True)
    send_event("a", "t", '{"ready": 1}', None, False, False)
    first, second = log.read("a", 0, 9)
    assert (first.data, first.skip_user_ids) == ('{"x": 1}', {"7", "8", "9"})
    assert second.data == '{"ready": 1}'


def test_1_2_get_current_event_id_is_quoted_and_needs_a_storage(history, settings):
    assert get_current_event_id(["user:5", "b", "c"]) == "user%3A5:5,b:1,c:0"
    settings.EVENTSTREAM_STORAGE_CLASS = None
    with pytest.raises(ValueError, match="STORAGE_CLASS"):
        get_current_event_id(["b"])


def test_1_2_channel_permission_changed_does_nothing_while_the_channel_is_readable(log):
    channel_permission_changed(None, "a")
    assert log.get_position([CONTROL_CHANNEL]).ids == {CONTROL_CHANNEL: 0}


def test_1_2_event_permission_error_names_channels():
    assert EventPermissionError("no").channels == []
    error = EventPermissionError("no", ["a"])
    assert (str(error), list(error.channels)) == ("no", ["a"])


# 1.2 get_events


def items(response: EventResponse) -> dict[str, list[tuple]]:
    return {
        name: [(e.id, e.type, e.data) for e in events]
        for name, events in response.channel_items.items()
    }


def test_1_2_get_events_divides_the_limit_among_channels(history):
    request = EventRequest(get("?channel=user:5&channel=b&lastEventId=user%253A5:1"))
    response = get_events(request, limit=4)
    assert isinstance(response, EventResponse)
    assert items(response) == {
        "user:5": [(2, "message", '{"n": 1}'), (3, "message", '{"n": 2}')],
        "b": [],
    }
    assert response.channel_last_ids == {"user:5": "1", "b": "1"}
    assert response.channel_more == {"user:5"}
    assert response.channel_reset == set()


def test_1_2_get_events_gives_each_channel_one_at_least(history):
    request = EventRequest(get("?channel=user:5&channel=b&lastEventId=user%253A5:0,b:0"))
    response = get_events(request, limit=1)
    assert items(response) == {
        "user:5": [(1, "message", '{"n": 0}')],
        "b": [(1, "update", "ready text")],
    }
    assert response.channel_more == {"user:5"}


def test_1_2_get_events_says_which_channels_must_start_over(history):
    request = EventRequest(get("?channel=user:5&channel=b&lastEventId=user%253A5:4,b:77"))
    response = get_events(request)
    assert response.channel_reset == {"b"}
    assert items(response) == {"user:5": [(5, "message", '{"n": 4}')], "b": []}
    assert response.channel_last_ids == {"user:5": "4", "b": "1"}


def test_1_2_get_events_has_a_bound_of_bytes(log):
    """A hundred events of 10 MB each were one response."""
    large = "x" * 400_000
    log.append([Event(name, "message", large) for name in "ab" for _ in range(10)])
    for since in ("0", "1"):
        request = EventRequest(get(f"?channel=a&channel=b&lastEventId=a:{since},b:{since}"))
        response = get_events(request)
        assert [len(found) for found in response.channel_items.values()] == [3, 1]
        assert response.channel_more == {"a", "b"}


def test_1_2_get_events_after_what_was_trimmed_says_so(history, log):
    log.trim("user:5", None, 2, 10)
    response = get_events(EventRequest(get("?channel=user:5&lastEventId=user%253A5:1")))
    assert response.channel_reset == {"user:5"}
    assert response.channel_last_ids == {"user:5": "5"}


@pytest.mark.parametrize("begins_epoch", [False, True])
def test_1_2_get_events_from_zero_begins_at_the_oldest_kept(history, log, begins_epoch):
    """Once the first event had expired, or an epoch had begun, it had none of them."""
    log.trim("user:5", None, 2, 10)
    epoch = log.begin_epoch() if begins_epoch else 0
    request = EventRequest(get("?channel=user:5&lastEventId=user%253A5:0"))
    response = get_events(request, limit=1)
    assert items(response) == {"user:5": [(4, "message", '{"n": 3}')]}
    assert (response.channel_last_ids, response.channel_reset) == ({"user:5": "3"}, set())
    assert (response.channel_more, response.epoch) == ({"user:5"}, epoch)
    again = EventRequest(get(f"?channel=user:5&lastEventId=user%253A5:0,:{epoch}"))
    assert get_events(again).channel_reset == {"user:5"}


def test_1_2_get_events_of_a_request_made_by_hand(history):
    """As tests and views of projects make it."""
    request = EventRequest()
    request.channels = {"b"}
    request.channel_last_ids = {"b": "0"}
    assert items(get_events(request)) == {"b": [(1, "update", "ready text")]}
    request.channel_last_ids = {"b": "no number"}
    assert get_events(request).channel_reset == {"b"}
    request.channel_last_ids = {}
    assert items(get_events(request)) == {"b": []}


def test_1_2_get_events_asks_for_the_user_that_it_is_given(log, settings):
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = "tests.managers.StrictChannelManager"
    request = EventRequest(get("?channel=private-ann"))
    with pytest.raises(EventPermissionError) as raised:
        get_events(request)
    assert raised.value.channels == ["private-ann"]
    assert str(raised.value) == "Permission denied to channels: private-ann"
    ann = get_user_model()(username="ann", pk=1)
    response = get_events(request, user=ann)
    assert (items(response), response.user) == ({"private-ann": []}, ann)
    request.user = ann
    assert get_events(request).user == ann


def test_1_2_get_events_leaves_out_what_the_user_skips(log):
    send_event("a", "t", 1, skip_user_ids=[7])
    send_event("a", "t", 2)
    request = EventRequest(get("?channel=a&lastEventId=a:0"))
    everybody = get_events(request)
    request.user = get_user_model()(pk=7)
    assert [event.id for event in everybody.channel_items["a"]] == [1, 2]
    assert [event.id for event in get_events(request).channel_items["a"]] == [2]


@pytest.mark.parametrize("storage", [None, "django_eventstream.storage.DjangoModelStorage"])
def test_1_2_get_events_of_channels_that_are_not_stored(log, settings, storage):
    settings.EVENTSTREAM_STORAGE_CLASS = storage
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = "tests.managers.LooseChannelManager"
    response = get_events(EventRequest(get("?channel=loose-a&lastEventId=loose-a:999")))
    assert (items(response), response.channel_last_ids) == ({"loose-a": []}, {})
    assert response.channel_reset == set()


# 1.3 EventRequest and EventResponse


def test_1_3_an_empty_event_request_has_its_attributes():
    request = EventRequest()
    assert (request.channels, request.channel_last_ids) == (set(), {})
    assert (request.is_next, request.is_recover, request.user) == (False, False, None)


def test_1_3_an_empty_event_response_has_its_attributes():
    response = EventResponse()
    assert (response.channel_items, response.channel_last_ids) == ({}, {})
    assert (response.channel_reset, response.channel_more) == (set(), set())
    assert (response.is_next, response.is_recover, response.user) == (False, False, None)


def test_1_3_event_request_reads_channels_position_and_user(log):
    http_request = get("?channel=user:5&channel=b&channel=b", **{"Last-Event-ID": "user%3A5:3,x:9"})
    http_request.user = get_user_model()(pk=7)
    request = EventRequest(http_request)
    assert request.channels == {"user:5", "b"}
    assert request.channel_last_ids == {"user:5": "3"}
    assert request.user.pk == 7
    http_request.user = AnonymousUser()
    assert EventRequest(http_request).user is None
    by_url = EventRequest(get("?channel=b"), view_kwargs={"channels": ["q", "w"]})
    assert by_url.channels == {"q", "w"}


@pytest.mark.parametrize(
    ("query", "limit", "error", "text"),
    [
        ("", 10, EventRequest.Error, "No channels specified"),
        ("?channel=a&channel=b", 1, EventRequest.Error, "Channel limit exceeded"),
        ("?channel=" + "x" * 256, 10, EventRequest.Error, "Invalid channel: .* 256 characters"),
        (
            "?channel=a&lastEventId=error",
            10,
            EventRequest.ResumeNotAllowedError,
            "^Can't resume session after stream-error$",
        ),
    ],
)
def test_1_3_event_request_refuses(query, limit, error, text):
    with pytest.raises(error, match=text) as raised:
        EventRequest(get(query), limit)
    assert isinstance(raised.value, EventRequest.Error)
    assert isinstance(raised.value, ValueError)


def test_1_3_event_request_has_its_own_limit_of_ten(settings):
    settings.EVENTSTREAM_CHANNEL_LIMIT = 3
    names = "&".join(f"channel={n}" for n in range(11))
    with pytest.raises(EventRequest.Error, match="Channel limit exceeded"):
        EventRequest(get(f"?{names}"))
    assert len(EventRequest(get(f"?{names}"), channel_limit=11).channels) == 11


def test_1_3_a_position_that_cannot_be_understood_starts_over(history):
    """In 5.3.4 it was an `Error`, which turned the client away for good."""
    request = EventRequest(get("?channel=b&lastEventId=nonsense"))
    assert get_events(request).channel_reset == {"b"}


def test_1_3_to_grip_response_without_a_proxy_has_the_events(history):
    request = EventRequest(get("?channel=user:5&channel=b&lastEventId=user%253A5:3,b:9"))
    response = get_events(request).to_grip_response(get("?channel=user:5&channel=b"))
    assert isinstance(response, HttpResponse)
    assert response["Content-Type"] == "text/event-stream"
    assert response.content.startswith(PADDING)
    found = [(e.type, e.last_event_id) for e in EventStreamParser().feed(response.content)]
    assert found == [
        ("stream-open", "b:1,user%3A5:3"),
        ("stream-reset", "b:1,user%3A5:3"),
        ("message", "b:1,user%3A5:4"),
        ("message", "b:1,user%3A5:5"),
    ]


def test_1_3_the_errors_of_event_request_have_their_names():
    assert issubclass(EventRequest.GripError, EventRequest.Error)
    assert issubclass(EventRequest.ResumeNotAllowedError, EventRequest.Error)


def test_1_3_a_channel_manager_serves_one_thread_and_may_use_the_database(log, settings):
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = "tests.managers.StrictChannelManager"
    here = get_channel_manager()
    assert get_channel_manager() is here
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(get_channel_manager).result() is not here


def test_1_2_async_publish_false_fails_loudly_and_keeps_the_event(log, monkeypatch):
    class Refusing(Publisher):
        def publish(self, events, *, wait=False):
            if wait:
                raise PublishError("nobody took it")

    monkeypatch.setattr(outbox, "get_publishers", lambda: (Refusing(),))
    with pytest.raises(PublishError):
        send_event("a", "t", 1, async_publish=False)
    send_event("a", "t", 2)
    assert [event.data for event in log.read("a", 0, 9)] == ["1", "2"]


# 1.3 Deprecated names: they work, and say what to use


def test_1_3_event_event_is_the_event_of_today():
    with pytest.warns(DeprecationWarning, match="import Event from django_eventstream"):
        Old = import_module("django_eventstream.event").Event
    assert Old("a", "t", "x") == Old(channel="a", type="t", data="x", id=None)
    assert Old("a", "t", {"any": "data"}, 3).id == 3


def test_1_3_storage_names_are_where_they_were():
    storage = import_module("django_eventstream.storage")
    assert storage.DjangoModelStorage is DjangoModelStorage
    assert storage.StorageBase.__module__ == "django_eventstream.storage.legacy"
    error = EventDoesNotExist("No such event 9", 5)
    assert (str(error), error.current_id) == ("No such event 9", 5)


def test_1_3_the_methods_of_the_old_storage_are_on_ours(log):
    storage = DjangoModelStorage()
    with pytest.warns(DeprecationWarning, match=r"append_event.*send_event"):
        event = storage.append_event("a", "message", {"html": "<div></div>"})
    assert (event.id, event.data) == (1, {"html": "<div></div>"})
    with pytest.warns(DeprecationWarning, match="read"):
        assert [(e.id, e.data) for e in storage.get_events("a", 0)] == [(1, event.data)]
    assert json.loads(log.read("a", 0, 1)[0].data) == event.data
    with pytest.warns(DeprecationWarning, match="get_position"):
        assert storage.get_current_id("a") == 1
    with pytest.warns(DeprecationWarning, match="read"), pytest.raises(EventDoesNotExist) as raised:
        storage.get_events("a", 9)
    assert raised.value.current_id == 1
    log.trim("a", None, 0, 10)
    with pytest.warns(DeprecationWarning, match="read"), pytest.raises(EventDoesNotExist):
        storage.get_events("a", 0)


def old(name: str, *arguments, **options):
    """Calls a function of `utils`, which must warn."""
    with pytest.warns(DeprecationWarning, match=f"utils.{name}"):
        return getattr(utils, name)(*arguments, **options)


def test_1_3_utils_write_the_wire():
    assert old("sse_encode_event", "a", "x\ny") == "event: a\ndata: x\ndata: y\n\n"
    assert (
        old("sse_encode_event", "a", {"x": 1}, json_encode=True) == 'event: a\ndata: {"x": 1}\n\n'
    )
    assert old("sse_encode_event", "message", 1, json_encode=True) == "event: message\ndata: 1\n\n"
    escaped = old("sse_encode_event", "a", "50%", "%I", True)
    assert escaped == "event: a\nid: %I\ndata: 50%%\n\n"
    error = old("sse_encode_error", "forbidden", "No.", {"channels": ["a"]})
    assert (
        old("sse_error_response", "forbidden", "No.", {"channels": ["a"]}).content == error.encode()
    )
    [message] = EventStreamParser().feed(error.encode())
    assert (message.type, message.last_event_id) == ("stream-error", "error")
    assert json.loads(message.data) == {"condition": "forbidden", "text": "No.", "channels": ["a"]}


def test_1_3_utils_read_and_write_cursors():
    assert old("make_id", {"user:5": 1, "b": "2"}) == "user%3A5:1,b:2"
    assert old("parse_last_event_id", "user%3A5:1,b:2") == {"user%3A5": "1", "b": "2"}
    with pytest.raises(ValueError, match="not a cursor"):
        old("parse_last_event_id", "zzz")
    assert old("build_id_escape", "a%b") == "a%%b"


def test_1_3_utils_find_classes(settings):
    path = "django_eventstream.storage.DjangoModelStorage"
    assert isinstance(old("get_storage"), DjangoModelStorage)
    settings.EVENTSTREAM_STORAGE_CLASS = None
    assert old("get_storage") is None
    assert isinstance(old("get_channelmanager"), DefaultChannelManager)
    assert isinstance(old("load_class", path), DjangoModelStorage)
    assert isinstance(old("get_class", path), DjangoModelStorage)
    assert isinstance(old("get_class_from_setting", "NOT_SET", path), DjangoModelStorage)
    assert old("get_class_from_setting", "NOT_SET") is None


def test_1_3_utils_set_headers(settings):
    settings.EVENTSTREAM_ALLOW_ORIGINS = ["http://a.example", "http://b.example"]
    request = get(Origin="http://b.example")
    response, headers, only_cors = HttpResponse(), {}, {}
    old("add_default_headers", response, request=request)
    old("add_default_headers", headers, request)
    old("augment_cors_headers", only_cors, request)
    assert response["X-Accel-Buffering"] == headers["X-Accel-Buffering"] == "no"
    assert response["Content-Encoding"] == headers["Content-Encoding"] == "identity"
    assert headers["Cache-Control"].startswith("no-cache")
    assert "X-Accel-Buffering" not in only_cors
    for found in response, headers, only_cors:
        assert found["Access-Control-Allow-Origin"] == "http://b.example"
    assert old("get_cors_from_settings") == ["http://a.example", "http://b.example"]
    assert old("find_related_origin", request, ["http://b.example"]) == "http://b.example"
    settings.EVENTSTREAM_ALLOW_ORIGINS = 5
    with pytest.raises(TypeError):
        old("get_cors_from_settings")


# 1.5 The tables


def test_1_5_models_have_their_fields():
    event = {field.name: field for field in models.Event._meta.fields}
    assert {"id", "channel", "type", "data", "eid", "created"} <= event.keys()
    assert [event[name].max_length for name in ("channel", "type")] == [255, 255]
    assert models.Event._meta.db_table == "django_eventstream_event"
    assert models.Event._meta.unique_together == (("channel", "eid"),)
    counter = {field.name: field for field in models.EventCounter._meta.fields}
    assert counter.keys() == {"id", "name", "value", "updated"}
    assert counter["name"].unique
    assert models.EventCounter._meta.db_table == "django_eventstream_eventcounter"
    for model in models.Event, models.EventCounter:
        assert model._meta.pk.get_internal_type() == "BigAutoField"


def test_1_5_event_counter_get_or_create(log):
    assert models.EventCounter.get_or_create("a").value == 0
    send_event("a", "t", 1)
    assert models.EventCounter.get_or_create(name="a").value == 1
    assert models.EventCounter.objects.count() == 1


def test_1_5_ids_of_a_channel_begin_at_one_and_the_counter_is_the_last(log):
    assert [send_event("a", "t", n).id for n in range(3)] == [1, 2, 3]
    assert models.EventCounter.objects.get(name="a").value == 3


def test_1_5_data_is_json_of_a_json_string(log):
    send_event("a", "t", {"n": 0})
    send_event("a", "t", "text", json_encode=False)
    rows = models.Event.objects.order_by("eid").values_list("data", flat=True)
    assert list(rows) == ['"{\\"n\\": 0}"', '"text"']


def test_1_5_an_event_saved_by_hand_gets_the_next_id_from_the_next_look(log):
    """In 5.3.4 it had its id at once, and no open stream got it; now it waits in the outbox."""
    send_event("a", "t", 1)
    row = models.Event(channel="a", type="t", data=json.dumps('{"by": "hand"}'))
    row.save()
    assert row.eid is None
    wait_until(lambda: "a" in log.get_position([]).unnumbered)
    response = get_events(EventRequest(get("?channel=a&lastEventId=a:1")))
    assert items(response) == {"a": [(2, "t", '{"by": "hand"}')]}
    assert send_event("a", "t", 3).id == 3


def test_1_5_an_event_saved_by_hand_is_numbered_by_the_next_send(log):
    models.Event.objects.create(channel="a", type="t", data='"by hand"')
    wait_until(lambda: "a" in log.get_position([]).unnumbered)
    assert outbox.relay_left_behind() == 1
    assert [(e.id, e.data) for e in log.read("a", 0, 9)] == [(1, "by hand")]


def test_1_5_placeholder_rows_are_neither_delivered_nor_counted(log):
    models.Event.objects.create(channel="a", type="", data="", eid=0)
    response = get_events(EventRequest(get("?channel=a&lastEventId=a:0")))
    assert items(response) == {"a": []}
    assert get_current_event_id(["a"]) == "a:0"
    assert send_event("a", "t", 1) == Event("a", "t", "1", 1)


@pytest.mark.parametrize("data", ['{"by": "hand"}', "by hand", "", '"cut'])
def test_1_5_data_that_is_no_json_string_is_sent_as_it_is(log, data):
    """A row that nobody could read had stopped its channel for good."""
    models.Event.objects.create(channel="a", type="t", data=data, eid=1)
    models.EventCounter.objects.create(name="a", value=1)
    assert [event.data for event in log.read("a", 0, 9)] == [data]
