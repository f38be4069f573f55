"""What a client asks for, as views that make their own answers read it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from django.utils.asyncio import async_unsafe

from django_eventstream.cursors import Cursor
from django_eventstream.exceptions import BadRequestError, SessionEndedError
from django_eventstream.web.proxy import is_of_predecessor, is_recovery, position_of
from django_eventstream.web.requests import (
    current_user,
    find_user,
    named_channels,
    parse_cursor,
)

CHANNEL_LIMIT = 10
"""Most channels of one request, unless the view says otherwise."""


class EventRequest:
    """The channels, the position and the user of a request.

    Made from nothing it is empty, and its attributes may be set by hand.

    Args:
        http_request: what to read; DRF's requests are taken, too.
        channel_limit: most channels; `Error` beyond.
        view_kwargs: what the URL said, for the channel manager.

    Raises:
        EventRequest.Error: the request cannot be understood.
        EventStreamError: the channel manager failed.
    """

    class Error(ValueError):
        """The request cannot be understood; a client may see the message. The others are kinds."""

    class GripError(Error):
        """A GRIP proxy asks for a connection that nothing is known of."""

    class ResumeNotAllowedError(Error):
        """The client comes back after a `stream-error`: a status of 400 keeps it away."""

    def __init__(
        self,
        http_request: HttpRequest | None = None,
        channel_limit: int = CHANNEL_LIMIT,
        view_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.channels: set[str] = set()
        self.channel_last_ids: dict[str, str] = {}
        """The client's position by channel; a channel that is missing starts at now."""
        self.epoch: int | None = None
        """Which life of the log the position belongs to; None where the client did not say it,
        and 0 asks for a channel from its beginning."""
        self.is_readable = True
        """False if the client brought a position of which some part cannot be understood."""
        self.is_next = False
        """Whether a GRIP proxy asks for what comes after the answer before."""
        self.is_recover = False
        """Whether a GRIP proxy asks for what a connection that it holds has missed."""
        self.user: Any = None
        """Who asks; None for somebody who is not logged in."""
        if http_request is not None:
            self.apply_http_request(http_request, channel_limit, view_kwargs)

    @classmethod
    async def amake(
        cls,
        http_request: HttpRequest,
        channel_limit: int = CHANNEL_LIMIT,
        view_kwargs: Mapping[str, Any] | None = None,
    ) -> EventRequest:
        """Make one in async code, of a request whose user may have to be looked for."""
        return await sync_to_async(cls)(http_request, channel_limit, view_kwargs)

    @async_unsafe(
        "EventRequest(request) reads the session:"
        " in async code write `await EventRequest.amake(request)`."
    )
    def apply_http_request(
        self,
        http_request: HttpRequest,
        channel_limit: int,
        view_kwargs: Mapping[str, Any] | None,
    ) -> None:
        """Take everything from a request. See the class for what is raised."""
        try:
            if is_recovery(http_request) and not is_of_predecessor(http_request):
                self._apply_recovery(http_request)
            else:
                self._apply_client(http_request, channel_limit, view_kwargs or {})
        except SessionEndedError as error:
            text = str(error).removeprefix("Invalid request: ").removesuffix(".")
            raise self.ResumeNotAllowedError(text) from error
        except BadRequestError as error:
            raise self.Error(str(error)) from error

    @property
    def cursor(self) -> Cursor | None:
        """The position; None to start at now."""
        if not self.channel_last_ids and self.is_readable:
            return None
        positions: dict[str, int] = {}
        for name, last_id in self.channel_last_ids.items():
            text = str(last_id)
            if text.isascii() and text.isdigit():
                positions[name] = int(text)
        is_readable = self.is_readable and len(positions) == len(self.channel_last_ids)
        return Cursor(MappingProxyType(positions), self.epoch, is_readable)

    def _apply_client(
        self, http_request: HttpRequest, channel_limit: int, view_kwargs: Mapping[str, Any]
    ) -> None:
        cursor = parse_cursor(http_request)
        self.user = current_user(http_request)
        self.channels = set(named_channels(http_request, view_kwargs, channel_limit))
        self.is_next = self.is_recover = False
        self._apply_cursor(cursor or Cursor())

    def _apply_recovery(self, http_request: HttpRequest) -> None:
        position = position_of(http_request)
        if position is None:
            raise self.GripError("Grip-Last does not say which connection it is about")
        self.channels = set(position.reliable | position.unreliable)
        self.user = find_user(position.user_id, self.channels)
        self.is_next = self.is_recover = True
        self._apply_cursor(position.cursor)

    def _apply_cursor(self, cursor: Cursor) -> None:
        positions = cursor.only(self.channels).positions
        self.channel_last_ids = {name: str(last_id) for name, last_id in positions.items()}
        self.epoch = cursor.epoch
        self.is_readable = cursor.is_readable
