"""Server-sent events: authorise, find channels and position, hand over a hold."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.utils.asyncio import async_unsafe
from django.views.decorators.csrf import csrf_exempt

from django_eventstream import sse
from django_eventstream.exceptions import EventStreamError
from django_eventstream.hold import Hold
from django_eventstream.views.recover import recover
from django_eventstream.web.asking import answers_with_streams, never_atomic
from django_eventstream.web.first_stream import first_stream
from django_eventstream.web.grip import hold_response
from django_eventstream.web.lobby import is_sent_away
from django_eventstream.web.proxy import is_proxied, is_recovery
from django_eventstream.web.requests import parse_hold
from django_eventstream.web.responses import (
    error_response,
    finish_headers,
    never_cached,
    retry_response,
)
from django_eventstream.web.streams import stream_response

METHODS = ["GET", "HEAD", "OPTIONS"]


# For each visitor, not only for one who is logged in: then the user is looked for in the database.
@async_unsafe("events() blocks: in async code write `return await aevents(request, …)`.")
# A method that changes nothing needs no token, and one that is refused gets 405 rather than 403.
@csrf_exempt
@never_atomic
@answers_with_streams
@never_cached
def events(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
    """Stream the events of the channels that the URL or the query names.

    It reads the session and the log. An `async def` view awaits `aevents()`, which takes the same
    arguments; `events()` raises `SynchronousOnlyOperation` there.
    """
    # Django REST framework's request has one of Django's inside, which has the user as well.
    request = getattr(request, "_request", request)
    if request.method not in METHODS:
        return HttpResponseNotAllowed(METHODS)
    first_stream.check()
    if is_recovery(request):
        return recover(request)
    if request.method == "OPTIONS":
        return finish_headers(request, HttpResponse(headers={"Allow": ", ".join(METHODS)}))
    if is_sent_away(request):
        return finish_headers(request, retry_response())
    try:
        hold = parse_hold(request, kwargs)
    except EventStreamError as error:
        return error_response(request, error)
    if request.method == "HEAD":
        # It must not open a stream; the headers are those of one.
        return finish_headers(request, HttpResponse(content_type=sse.CONTENT_TYPE))
    return finish_headers(request, _answer(request, hold))


aevents = sync_to_async(events)


def _answer(request: HttpRequest, hold: Hold) -> HttpResponseBase:
    if not is_proxied(request):
        return stream_response(request, hold)
    try:
        return hold_response(request, hold, is_open=_is_open(request))
    except EventStreamError as error:
        return error_response(request, error)


def _is_open(request: HttpRequest) -> bool:
    """Say whether no other view, nor a decorator of one, has decided who may ask here."""
    return request.resolver_match is not None and request.resolver_match.func in (events, aevents)
