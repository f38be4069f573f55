"""Server-sent events: authorise, find channels and position, hand over a hold."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed

from django_eventstream import sse
from django_eventstream.exceptions import EventStreamError
from django_eventstream.web.requests import parse_hold
from django_eventstream.web.responses import error_response, finish_headers
from django_eventstream.web.streams import stream_response

METHODS = ["GET", "HEAD", "OPTIONS"]


def events(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
    """Stream the events of the channels that the URL or the query names."""
    if request.method not in METHODS:
        return HttpResponseNotAllowed(METHODS)
    if request.method == "OPTIONS":
        return finish_headers(request, HttpResponse(headers={"Allow": ", ".join(METHODS)}))
    try:
        hold = parse_hold(request, kwargs)
    except EventStreamError as error:
        return error_response(request, error)
    if request.method == "HEAD":
        # It must not open a stream; the headers are those of one.
        return finish_headers(request, HttpResponse(content_type=sse.CONTENT_TYPE))
    return finish_headers(request, stream_response(request, hold))
