"""What a client gets, for views that make their own answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.utils.asyncio import async_unsafe

from django_eventstream import sse
from django_eventstream.control import user_key
from django_eventstream.cursors import Cursor, format_cursor
from django_eventstream.eventrequest import EventRequest
from django_eventstream.events import Event
from django_eventstream.web.grip import hold_response, recovery_response
from django_eventstream.web.proxy import is_proxied
from django_eventstream.web.requests import make_hold
from django_eventstream.web.responses import forbid_buffering, keep_as_it_is


class EventResponse:
    """Events that were read for a request, by channel. `get_events()` makes it."""

    def __init__(self) -> None:
        self.channel_items: dict[str, list[Event]] = {}
        """The events of each channel, in order; it has every channel of the request."""
        self.channel_last_ids: dict[str, str] = {}
        """Where the events begin: the last id before them, of each channel that is stored."""
        self.channel_reset: set[str] = set()
        """Channels whose position could not be resumed: the client must start over."""
        self.channel_more: set[str] = set()
        """Channels with more events than there was room for."""
        self.epoch = 0
        """Which life of the log the positions belong to."""
        self.is_next = False
        self.is_recover = False
        """See `EventRequest`."""
        self.user: Any = None
        """Who reads; None for somebody who is not logged in."""

    @classmethod
    def to(cls, request: EventRequest, user: Any) -> EventResponse:
        """Make the empty answer to a request."""
        response = cls()
        response.is_next = request.is_next
        response.is_recover = request.is_recover
        response.user = user
        return response

    def is_for_user(self, event: Event) -> bool:
        """Say whether the event was not sent with this user among those who skip it."""
        return user_key(self.user) not in event.skip_user_ids

    @async_unsafe(
        "to_grip_response() blocks: in async code write `await response.ato_grip_response(…)`."
    )
    def to_grip_response(self, http_request: HttpRequest) -> HttpResponse:
        """Answer with a stream that the GRIP proxy of the request holds from here on.

        It begins where the events of this response begin, and they are read again: what was sent
        meanwhile is among them. Without a proxy the answer has the events, and ends.

        Raises `EventPermissionError` if the user may no longer read the channels, and
        `StorageUnavailableError`.
        """
        response = self._answer(http_request)
        keep_as_it_is(http_request, response)
        forbid_buffering(response)
        return response

    ato_grip_response = sync_to_async(to_grip_response)

    def _answer(self, http_request: HttpRequest) -> HttpResponse:
        if not is_proxied(http_request):
            return HttpResponse(b"".join(self._frames()), content_type=sse.CONTENT_TYPE)
        # A channel that is missing in a cursor that is not readable must start over.
        cursor = Cursor(self._positions(), self.epoch, is_readable=not self.channel_reset)
        hold = make_hold(self.channel_items, cursor, self.user, time.monotonic())
        answer = recovery_response if self.is_recover else hold_response
        return answer(http_request, hold)

    def _positions(self) -> MappingProxyType[str, int]:
        kept = self.channel_last_ids.keys() - self.channel_reset
        return MappingProxyType({name: int(self.channel_last_ids[name]) for name in sorted(kept)})

    def _frames(self) -> Iterator[bytes]:
        positions = {name: int(last_id) for name, last_id in sorted(self.channel_last_ids.items())}
        if not self.is_next:
            yield sse.encode_open(format_cursor(positions.items(), self.epoch))
        if self.channel_reset:
            reasons = dict.fromkeys(self.channel_reset, "unreadable")
            yield sse.encode_reset(reasons, format_cursor(positions.items(), self.epoch))
        for name in sorted(self.channel_items):
            for event in self.channel_items[name]:
                if event.id is not None:
                    positions[name] = event.id
                yield sse.encode(
                    event.type, event.data, format_cursor(positions.items(), self.epoch)
                )
