"""What a type checker must understand of the public API. Checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponseBase
from typing_extensions import assert_type

from django_eventstream import (
    Event,
    EventPermissionError,
    EventRequest,
    EventResponse,
    aget_current_event_id,
    aget_events,
    asend_event,
    asend_events,
    channel_permission_changed,
    get_current_event_id,
    get_events,
    send_event,
    send_events,
)
from django_eventstream.channelmanager import DefaultChannelManager, Retention
from django_eventstream.views import aevents, events


def send() -> None:
    event = send_event("news", "message", {"any": ["JSON"]}, skip_user_ids=[1, "2"])
    assert_type(event, Event)
    assert_type(event.id, int | None)
    send_event("news", "message", "text", None, False, False)
    assert_type(send_events([("news", "message", 1), event]), list[Event])
    assert_type(get_current_event_id(["news"]), str)


def read(request: HttpRequest) -> HttpResponseBase:
    event_request = EventRequest(request, 20, {"channels": ["news"]})
    assert_type(event_request.channel_last_ids, dict[str, str])
    response = get_events(event_request, limit=50)
    assert_type(response, EventResponse)
    assert_type(response.channel_items, dict[str, list[Event]])
    return response.to_grip_response(request)


async def send_in_async_code() -> None:
    assert_type(await asend_event("news", "message", None, json_encode=True), Event)
    assert_type(await asend_events([]), list[Event])
    assert_type(await aget_current_event_id({"news"}), str)


class Manager(DefaultChannelManager):
    def get_channels_for_request(
        self, request: HttpRequest, view_kwargs: Mapping[str, Any]
    ) -> Iterable[str]:
        return ["news"]

    def can_read_channel(self, user: User | None, channel: str) -> bool:
        return user is not None

    def get_retention(self, channel: str) -> Retention:
        return Retention(seconds=60, count=None)


def change(user: User) -> None:
    channel_permission_changed(user, "news")
    channel_permission_changed(None, "news")
    raise EventPermissionError("no", ["news"])


def view(request: HttpRequest) -> HttpResponseBase:
    return events(request, channels=["news"])


async def stream_out_of_async_code(request: HttpRequest) -> HttpResponseBase:
    return await aevents(request, channels=["news"])


async def read_in_async_code(request: HttpRequest) -> HttpResponseBase:
    event_request = await EventRequest.amake(request)
    assert_type(event_request, EventRequest)
    response = await aget_events(event_request, limit=50)
    assert_type(response, EventResponse)
    return await response.ato_grip_response(request)
