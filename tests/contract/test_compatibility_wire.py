"""What clients of django-eventstream 5.3.4 ask for and read, row by row, in both lanes.

The names of tests begin with the section of the checklist: 1.4 settings, 1.6 the request, 1.7 the
wire. What is different is in `docs/howto/upgrading.md`.
"""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import pytest
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIHandler
from django.http import Http404, StreamingHttpResponse
from django.test import override_settings
from django.urls import include, path

import django_eventstream
from django_eventstream import (
    EventRequest,
    asend_event,
    backends,
    get_current_event_id,
    send_event,
    utils,
)
from django_eventstream.asgi import EventStreamApplication
from django_eventstream.conf import Settings
from django_eventstream.storage import DjangoModelStorage
from django_eventstream.views import Listener, stream
from tests import managers
from tests.services.deadline import HEALTHY
from tests.sse_parser import EventStreamParser, Message
from tests.visitor import Visitor

pytestmark = pytest.mark.django_db(transaction=True)

LANES = {"plain": ASGIHandler, "wrapper": lambda: EventStreamApplication(ASGIHandler())}
# 5.3.4 had a blank line behind it, which fetch-event-source takes for an empty message.
PADDING = b":" + b" " * 2048 + b"\n"


def by_hand(request, room):
    """A view as projects put it together for 5.3.4."""
    event_request = EventRequest(request, view_kwargs={"channels": [f"room-{room}"]})
    listener = Listener()
    listener.user_id, listener.channels = "anonymous", event_request.channels
    response = StreamingHttpResponse(
        stream(event_request, listener), content_type="text/event-stream"
    )
    utils.add_default_headers(response, request=request)
    return response


urlpatterns = [
    path("events/", include(django_eventstream.urls)),
    path("one/<channel>/", include("django_eventstream.urls")),
    path("fixed/", include("django_eventstream.urls"), {"channels": ["a", "b"]}),
    path(
        "rooms/<room>/<floor>/",
        include("django_eventstream.urls"),
        {
            "format-channels": ["room-{room}", "floor-{floor}"],
            "channels": ["a"],
            "channel": "b",
        },
    ),
    path("both/<channel>/", include("django_eventstream.urls"), {"channels": ["a", "b"]}),
    path("by-hand/<room>/", by_hand),
]


@pytest.fixture(autouse=True)
def quick(settings):
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = []
    settings.EVENTSTREAM_POLL_SECONDS = 0.05


@pytest.fixture(params=LANES)
def lane(request):
    return LANES[request.param]


def answer(lane, *arguments, **options) -> Visitor:
    """Of a request that opens no stream."""

    async def main() -> Visitor:
        return await asyncio.wait_for(Visitor(*arguments, **options).visit(lane()), HEALTHY)

    return asyncio.run(main())


def streamed(lane, target: str, *, until: bytes = b"stream-open", send=(), **headers) -> Visitor:
    """A stream up to this text, with events that are sent once it is open."""

    async def main() -> Visitor:
        visitor = Visitor(target, headers=headers)
        visiting = visitor.begin(lane())
        await visitor.wait_for(b"stream-open")
        for event in send:
            await asend_event(*event)
        await visitor.wait_for(until)
        visitor.is_gone.set()
        await asyncio.wait_for(visiting, HEALTHY)
        return visitor

    return asyncio.run(main())


def messages(visitor: Visitor) -> list[Message]:
    return EventStreamParser().feed(visitor.body)


def cursors(visitor: Visitor) -> list[str]:
    return [message.last_event_id for message in messages(visitor)]


def channels_of(visitor: Visitor) -> list[str]:
    """Of the cursor in the first frame."""
    return [part.rpartition(":")[0] for part in cursors(visitor)[0].split(",")]


def error_of(visitor: Visitor) -> dict[str, object]:
    [message] = messages(visitor)
    assert (visitor.status, visitor.is_over) == (200, True)
    assert (message.type, message.last_event_id) == ("stream-error", "error")
    return json.loads(message.data)


# 1.4 Settings


@pytest.mark.parametrize(
    ("name", "value", "of"),
    [
        ("STORAGE_CLASS", None, lambda: backends.get_storage() is None),
        (
            "STORAGE_CLASS",
            "django_eventstream.storage.DjangoModelStorage",
            lambda: type(backends.get_storage()) is DjangoModelStorage,
        ),
        (
            "CHANNELMANAGER_CLASS",
            "tests.managers.LooseChannelManager",
            lambda: type(backends.get_channel_manager()) is managers.LooseChannelManager,
        ),
    ],
)
def test_1_4_classes_are_read_late_so_that_override_settings_works(name, value, of):
    with override_settings(**{f"EVENTSTREAM_{name}": value}):
        assert of()
    assert type(backends.get_storage()) is DjangoModelStorage, "the default stores"


@pytest.mark.parametrize(
    ("settings_of", "origin", "allowed"),
    [
        ({"ALLOW_ORIGIN": "http://a.example"}, "http://a.example", "http://a.example"),
        # A single string is sent as it is, whoever asks.
        ({"ALLOW_ORIGIN": "http://a.example"}, "http://b.example", "http://a.example"),
        ({"ALLOW_ORIGIN": "*"}, "http://b.example", "*"),
        ({"ALLOW_ORIGINS": "http://a.example"}, "http://a.example", "http://a.example"),
        ({"ALLOW_ORIGIN": ["http://a.example", "http://b.example"]}, "http://b.example", "http://b.example"),
        ({"ALLOW_ORIGINS": ["http://a.example", "http://b.example"]}, "http://b.example", "http://b.example"),
        ({"ALLOW_ORIGINS": ["http://a.example", "http://b.example"]}, "http://c.example", None),
        ({"ALLOW_ORIGIN": "http://a.example", "ALLOW_ORIGINS": "*"}, "http://c.example", "http://a.example"),
        ({}, "http://a.example", None),
    ],
)  # fmt: skip
def test_1_4_the_origin_of_the_page_is_compared(lane, settings, settings_of, origin, allowed):
    for name, value in settings_of.items():
        setattr(settings, f"EVENTSTREAM_{name}", value)
    headers = streamed(lane, "/events/?channel=a", origin=origin).headers
    assert headers.get("access-control-allow-origin") == allowed
    assert ("Origin" in headers.get("vary", "")) is bool(settings_of)


@pytest.mark.parametrize("value", ["X-One, X-Two", ["X-One", "X-Two"]])
def test_1_4_credentials_and_headers(lane, settings, value):
    settings.EVENTSTREAM_ALLOW_ORIGIN = "http://a.example"
    settings.EVENTSTREAM_ALLOW_CREDENTIALS = True
    settings.EVENTSTREAM_ALLOW_HEADERS = value
    headers = streamed(lane, "/events/?channel=a", origin="http://a.example").headers
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["access-control-allow-headers"].endswith("X-One, X-Two")


# 1.6 The request


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/events/?channel=a&channel=b&channel=a", ["a", "b"]),
        ("/one/a/?channel=b", ["a"]),
        ("/one/user:5/", ["user%3A5"]),
        ("/both/c/?channel=d", ["a", "b"]),
        ("/fixed/?channel=c", ["a", "b"]),
        ("/rooms/7/2/?channel=c", ["floor-2", "room-7"]),
    ],
)
def test_1_6_format_channels_then_channels_then_channel_then_the_query(lane, target, expected):
    assert channels_of(streamed(lane, target)) == expected


def test_1_6_ten_channels_are_the_most_unless_the_setting_says_otherwise(lane, settings):
    eleven = "&".join(f"channel={n:02}" for n in range(11))
    target = f"/events/?{eleven}"
    ten = target.removesuffix("&channel=10")
    assert len(channels_of(streamed(lane, ten))) == 10
    error = error_of(answer(lane, target))
    assert error["condition"] == "bad-request"
    assert error["text"] == "Channel limit exceeded"
    settings.EVENTSTREAM_CHANNEL_LIMIT = 11
    assert len(channels_of(streamed(lane, target))) == 11


def test_1_6_no_channel_is_an_error(lane):
    assert error_of(answer(lane, "/events/")) == {
        "condition": "bad-request",
        "text": "No channels specified",
    }


@pytest.mark.parametrize(
    ("query", "header", "expected"),
    [
        ("", "user%3A5:1", ["2", "3"]),
        ("&lastEventId=user%253A5:2", "", ["3"]),
        ("&lastEventId=user%253A5:0", "user%3A5:2", ["3"]),
        ("&lastEventId=user%253A5:0&lastEventId=user%253A5:2&lastEventId=", "", ["3"]),
        ("&lastEventId=user%253A5:0", "", ["1", "2", "3"]),
        ("", "other:7,user%3A5:2", ["3"]),
        ("", "", []),
        ("", "other:7", []),
    ],
)
def test_1_6_the_cursor_comes_by_header_or_by_the_last_query_that_says_one(
    lane, query, header, expected
):
    for n in (1, 2, 3):
        send_event("user:5", "message", n)
    headers = {"last-event-id": header} if header else {}
    visitor = streamed(
        lane,
        f"/events/?channel=user:5{query}",
        send=[("user:5", "message", "last")],
        until=b'"last"',
        **headers,
    )
    found = [message.data for message in messages(visitor) if message.type == "message"]
    assert found == [*expected, '"last"']


def test_1_6_a_channel_without_an_entry_in_the_cursor_starts_at_now(lane):
    send_event("a", "message", 1)
    send_event("b", "message", 1)
    visitor = streamed(lane, "/events/?channel=a&channel=b&lastEventId=a:0", until=b"a:1,b:1\n\n")
    assert cursors(visitor) == ["a:0,b:1", "a:1,b:1"]


@pytest.mark.parametrize("target", ["?channel=a&lastEventId=error", "?channel=a"])
def test_1_6_who_comes_back_after_an_error_is_stopped_by_status_400(lane, target):
    headers = {} if "error" in target else {"last-event-id": "error"}
    visitor = answer(lane, f"/events/{target}", headers=headers)
    assert visitor.status == 400
    assert visitor.body == b"Invalid request: Can't resume session after stream-error.\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
def test_1_6_other_methods_are_refused(lane, method):
    assert answer(lane, method=method).status == 405


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_1_6_head_and_options_open_no_stream(lane, method):
    visitor = answer(lane, method=method)
    assert (visitor.status, visitor.body) == (200, b"")


def test_1_6_what_belongs_to_the_dialogue_with_a_proxy_harms_nobody(lane):
    """In 5.3.4 `recover=true` without a proxy was status 500, and `link=next` another stream."""
    for query in ("link=next", "recover=true"):
        assert channels_of(streamed(lane, f"/events/?channel=a&{query}")) == ["a"]
    assert answer(lane, "/events/?channel=a&es-meta=x").status == 200


class Refusing(managers.LooseChannelManager):
    def get_channels_for_request(self, request, view_kwargs):
        raise PermissionDenied if "deny" in request.GET else Http404


@pytest.mark.parametrize(("query", "status"), [("deny", 403), ("", 404)])
def test_1_6_a_channel_manager_may_leave_the_answer_to_django(lane, settings, query, status):
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = f"{__name__}.Refusing"
    visitor = answer(lane, f"/events/?{query}")
    assert visitor.status == status
    assert visitor.headers["content-type"].startswith("text/html")


# 1.7 The wire


def test_1_7_the_first_bytes_and_the_headers(lane):
    visitor = streamed(lane, "/events/?channel=user:5")
    assert visitor.status == 200
    assert visitor.headers["content-type"] == "text/event-stream"
    assert visitor.headers["cache-control"].startswith("no-cache")
    assert visitor.headers["x-accel-buffering"] == "no"
    # Without it Caddy, Varnish and nginx compress a stream, and hold it back.
    assert visitor.headers["content-encoding"] == "identity"
    assert visitor.body.startswith(PADDING + b"event: stream-open\ndata: \nid: user%3A5:0")
    assert cursors(visitor) == ["user%3A5:0"]


def test_1_7_an_event_has_its_type_its_lines_and_its_id_in_the_end(lane):
    send_event("a", "message", "one\r\ntwo\rthree\nfour", json_encode=False)
    send_event("a", "update", {"n": "\x00"})
    visitor = streamed(lane, "/events/?channel=a&lastEventId=a:0", until=b"id: a:2\n\n")
    assert (
        # 5.3.4 wrote "event: message", which is the same event for all readers but htmx 4.
        b"data: one\ndata: two\ndata: three\ndata: four\nid: a:1\n\n"
        b'event: update\ndata: {"n": "\\u0000"}\nid: a:2\n\n'
    ) in visitor.body
    assert b"\r" not in visitor.body


def test_1_7_a_reset_names_channels_and_has_the_current_position(lane):
    send_event("a", "message", 1)
    visitor = streamed(lane, "/events/?channel=a&lastEventId=a:9", until=b"stream-reset")
    [reset] = [message for message in messages(visitor) if message.type == "stream-reset"]
    assert json.loads(reset.data)["channels"] == ["a"]
    assert reset.last_event_id == "a:1"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "/events/?channel=private-b&channel=private-a&channel=c",
            {
                "condition": "forbidden",
                "text": "Permission denied to channels: private-a, private-b",
                "channels": ["private-a", "private-b"],
            },
        ),
        ("/events/", {"condition": "bad-request", "text": "No channels specified"}),
        ("/events/?channel=broken", {"condition": "internal-error", "text": "Internal error"}),
    ],
)
def test_1_7_errors_have_status_200_and_end_the_stream(lane, settings, target, expected):
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = "tests.managers.StrictChannelManager"
    assert error_of(answer(lane, target)) == expected


def test_1_7_a_keep_alive_is_a_named_event_every_twenty_seconds(lane, settings):
    assert Settings.KEEP_ALIVE_SECONDS == 20
    settings.EVENTSTREAM_KEEP_ALIVE_SECONDS = 0.1
    visitor = streamed(lane, "/events/?channel=a", until=b"keep-alive\ndata: \n\n")
    assert (messages(visitor)[1].type, messages(visitor)[1].data) == ("keep-alive", "")
    assert cursors(visitor)[:2] == ["a:0", "a:0"]


def test_1_7_events_of_unreliable_channels_have_no_id_of_their_own(lane, settings):
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = "tests.managers.LooseChannelManager"
    events = [("loose-b", "message", 1), ("a", "message", 2)]
    alone = streamed(lane, "/events/?channel=loose-b", send=events, until=b"data: 1\n")
    assert b"id:" not in alone.body
    mixed = streamed(lane, "/events/?channel=a&channel=loose-b", send=events, until=b"id: a:2\n\n")
    assert [m.data for m in messages(mixed)] == ["", "1", "2"]
    assert cursors(mixed) == ["a:1", "a:1", "a:2"], "the cursor goes on"


@pytest.mark.parametrize("end", ["\r", "\n", "\x00"])
def test_1_7_no_line_end_and_no_nul_gets_into_a_type_or_an_id(lane, end):
    with pytest.raises(ValueError, match="contains"):
        send_event("a", f"up{end}date", 1)
    send_event(f"a{'' if end == chr(0) else end}b", "update", 1)
    name = quote(f"a{'' if end == chr(0) else end}b")
    visitor = streamed(
        lane, f"/events/?channel={name}&lastEventId={quote(name)}:0", until=b"update"
    )
    assert cursors(visitor)[-1] == f"{name}:1"


# Channel names


@pytest.mark.parametrize(
    "name", ["user:5", "a,b", "100%", "a b", "café", "💥/x", "\u2028", "'\"\\"]
)
def test_1_6_a_name_is_quoted_the_same_way_everywhere(lane, name):
    send_event(name, "message", 1)
    cursor = get_current_event_id([name])
    assert cursor == f"{quote(name)}:1"
    visitor = streamed(
        lane,
        f"/events/?channel={quote(name, safe='')}&lastEventId={quote(quote(name))}:0",
        until=f"id: {cursor}\n\n".encode(),
    )
    assert cursors(visitor) == [f"{quote(name)}:0", cursor]


@pytest.mark.parametrize("letter", ["x", "ä", "💥"])
def test_1_6_a_name_of_255_characters_is_the_longest(lane, letter):
    name = letter * 255
    visitor = streamed(
        lane,
        f"/events/?channel={quote(name)}",
        send=[(name, "message", 1)],
        until=f"id: {quote(name)}:1\n".encode(),
    )
    assert messages(visitor)[-1].data == "1"
    longer = f"{name}{letter}"
    with pytest.raises(ValueError, match="channel has 256 characters; at most 255"):
        send_event(longer, "message", 1)
    error = error_of(answer(lane, f"/events/?channel={quote(longer)}"))
    assert error["condition"] == "bad-request"
    assert "256 characters; at most 255" in error["text"]


# 1.3 A stream put together by hand


@pytest.mark.parametrize("name", LANES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_1_3_a_view_with_listener_and_stream_streams(name):
    send_event("room-7", "message", 1)
    visitor = streamed(
        LANES[name],
        "/by-hand/7/?lastEventId=room-7:0",
        send=[("room-7", "message", 2)],
        until=b"id: room-7:2\n\n",
    )
    assert cursors(visitor) == ["room-7:0", "room-7:1", "room-7:2"]
    assert visitor.headers["x-accel-buffering"] == "no"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_1_3_a_stream_by_hand_ends_with_the_error_that_forbids_it(settings):
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = f"{__name__}.Closed"
    visitor = answer(ASGIHandler, "/by-hand/7/")
    assert error_of(visitor)["channels"] == ["room-7"]


class Closed(managers.ClosableChannelManager):
    is_open = False
