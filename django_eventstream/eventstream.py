"""Reading what was sent, and the module of django-eventstream 5 that had all its verbs."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.utils.asyncio import async_unsafe

from django_eventstream.api import channel_permission_changed as channel_permission_changed
from django_eventstream.api import get_current_event_id as get_current_event_id
from django_eventstream.api import send_event as send_event
from django_eventstream.backends import get_channel_manager, get_storage, is_reliable
from django_eventstream.catchup import read_oldest
from django_eventstream.channelmanager import authorize
from django_eventstream.cursors import resolve_start
from django_eventstream.eventrequest import EventRequest
from django_eventstream.eventresponse import EventResponse
from django_eventstream.events import Event
from django_eventstream.exceptions import EventPermissionError as EventPermissionError
from django_eventstream.exceptions import HistoryGoneError
from django_eventstream.outbox import look
from django_eventstream.storage.base import Storage

MOST_BYTES = 1_000_000
"""Of data in one response; what is beyond comes with the next one."""


@async_unsafe("get_events() blocks: in async code write `await aget_events(…)`.")
def get_events(request: EventRequest, limit: int = 100, user: Any = None) -> EventResponse:
    """Read what comes after the position of a request, for a view that makes its own answer.

    A position of 0 that the client brought without an epoch begins at the oldest event kept.

    Args:
        request: the channels and the position.
        limit: most events in all; each channel gets an equal share, and at least one. Once they
            have 1 MB of data, each further channel has one event.
        user: who reads, if not the user of the request.

    Returns:
        For each channel its events in order, and whether there are more of them. A channel whose
        position cannot be resumed has none, is in `channel_reset`, and stands at its end.

    Raises:
        EventPermissionError: with the channels that the user may not read.
        StorageUnavailableError: the log cannot be read now.
    """
    response = EventResponse.to(request, request.user if user is None else user)
    channels = sorted(request.channels)
    authorize(get_channel_manager(), response.user, channels)
    response.channel_items = {name: [] for name in channels}
    reliable = [name for name in channels if is_reliable(name)]
    storage = get_storage()
    if storage is None or not reliable:
        return response
    position = look(storage, reliable)
    start = resolve_start(reliable, request.cursor, position.ids, position.epoch)
    response.epoch = position.epoch
    response.channel_reset = set(start.resets)
    share = max(1, limit // len(channels))
    room = MOST_BYTES
    for name in reliable:
        after, current = start.positions[name], position.ids[name]
        if name in start.from_oldest:
            after, events = read_oldest(storage, name, after, current, share, max(1, room))
        else:
            after, events = _read(storage, name, after, current, share, max(1, room), response)
        _add(response, name, after, current, events)
        room -= sum(len(event.data) for event in events)
    return response


aget_events = sync_to_async(get_events)


def _read(
    storage: Storage,
    name: str,
    after: int,
    current: int,
    limit: int,
    room: int,
    response: EventResponse,
) -> tuple[int, list[Event]]:
    try:
        return after, storage.read(name, after, limit, room) if after < current else []
    except HistoryGoneError as gone:
        response.channel_reset.add(name)
        return max(current, gone.oldest - 1), []


def _add(response: EventResponse, name: str, after: int, current: int, events: list[Event]) -> None:
    response.channel_last_ids[name] = str(after)
    response.channel_items[name] = [event for event in events if response.is_for_user(event)]
    if events and (events[-1].id or 0) < current:
        response.channel_more.add(name)
