"""A stream for views that django-eventstream 5 let people put together by hand.

    event_request = EventRequest(request, view_kwargs=kwargs)
    response = StreamingHttpResponse(stream(event_request, Listener()))
    response["Content-Type"] = "text/event-stream"
    utils.add_default_headers(response, request)  # or a cache gives it to others as well

The view `events` does all of this, and more: it answers to proxies, and lets the wrapper hold the
stream. What decides about channels belongs into a channel manager.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from asgiref.sync import sync_to_async

from django_eventstream import sse
from django_eventstream.deprecation import deprecated, warn_deprecated
from django_eventstream.eventrequest import EventRequest
from django_eventstream.exceptions import EventStreamError, StorageUnavailableError
from django_eventstream.hold import Hold
from django_eventstream.web.requests import make_hold
from django_eventstream.web.streams import HeldStream

INSTEAD = "route to django_eventstream.urls, and decide about channels in a channel manager"


class Listener:
    """Does nothing any more: the hub of the process listens. Any attribute may be set."""

    def __init__(self) -> None:
        warn_deprecated("django_eventstream.views.Listener", INSTEAD)
        self.channels: Any = set()
        self.user_id: Any = None


@deprecated(INSTEAD)
def stream(event_request: EventRequest, listener: object) -> AsyncGenerator[bytes, None]:
    """Stream what a request asks for, to its user, until the client leaves."""
    return _stream(event_request)


async def _stream(event_request: EventRequest) -> AsyncGenerator[bytes, None]:
    try:
        hold = await sync_to_async(_make_hold)(event_request)
    except StorageUnavailableError:
        # It comes back by itself, with its cursor.
        return
    except EventStreamError as error:
        yield sse.encode_error(error.condition, str(error), error.channels)
        return
    async with aclosing(HeldStream(hold)) as chunks:
        async for chunk in chunks:
            yield chunk


def _make_hold(event_request: EventRequest) -> Hold:
    return make_hold(
        event_request.channels, event_request.cursor, event_request.user, time.monotonic()
    )
