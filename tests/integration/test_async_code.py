"""What blocks says in async code what to await instead, and that works."""

from __future__ import annotations

import asyncio

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import SynchronousOnlyOperation
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject

from django_eventstream import (
    EventRequest,
    EventResponse,
    aget_events,
    channel_permission_changed,
    get_current_event_id,
    get_events,
    send_event,
    send_events,
)
from django_eventstream.views import events

REQUEST = RequestFactory().get("/events/?channel=a")
BLOCKING = [
    (send_event, ["a", "t", 1], "await asend_event"),
    (send_events, [[]], "await asend_events"),
    (get_current_event_id, [["a"]], "await aget_current_event_id"),
    (channel_permission_changed, [None, "a"], "await achannel_permission_changed"),
    (get_events, [EventRequest()], "await aget_events"),
    (events, [REQUEST], "await aevents"),
    (EventRequest, [REQUEST], "await EventRequest.amake"),
    (EventResponse().to_grip_response, [REQUEST], "await response.ato_grip_response"),
]


@pytest.fixture
def default(sqlite_only):
    with sqlite_only.as_default():
        yield


@pytest.mark.parametrize(("function", "arguments", "instead"), BLOCKING)
def test_async_code_is_told_what_to_await(function, arguments, instead, default):
    """Some of it seemed to work, until a visitor came who was logged in."""

    async def call() -> None:
        function(*arguments)

    with pytest.raises(SynchronousOnlyOperation, match=instead):
        asyncio.run(call())


def test_async_code_reads_as_a_user_who_is_found_in_the_database(default):
    alice = get_user_model().objects.create(username="alice")
    request = RequestFactory().get("/history/", {"channel": "a", "lastEventId": "a:0"})
    request.user = SimpleLazyObject(lambda: get_user_model().objects.get())
    send_event("a", "message", "text")

    async def read() -> bytes:
        event_request = await EventRequest.amake(request)
        assert event_request.user == alice
        response = await aget_events(event_request)
        assert [event.data for event in response.channel_items["a"]] == ['"text"']
        return (await response.ato_grip_response(request)).content

    assert b'data: "text"' in asyncio.run(read())
