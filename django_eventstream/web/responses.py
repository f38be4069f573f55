"""Answers: their headers, what keeps them out of caches, and what an error looks like."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from django.core.handlers.exception import response_for_exception
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from django_eventstream import sse
from django_eventstream.exceptions import (
    BadRequestError,
    EventPermissionError,
    EventStreamError,
    SessionEndedError,
    StorageUnavailableError,
)
from django_eventstream.web.cors import add_cors_headers
from django_eventstream.web.requests import DJANGOS_ANSWERS

logger = logging.getLogger(__name__)

RETRY_MILLISECONDS = (3_000, 8_000)
"""When to come back to a server that cannot reach its log, spread against stampedes."""


CACHE_CONTROL = "no-cache, no-transform, private, no-store"
"""Of all our answers, which depend on who asks, and on what was sent meanwhile: neither is in the
URL. Without it any cache may keep an answer and give it to somebody else (RFC 9111 §3, §4.2.2)."""

NO_ENCODING = "identity"
"""The `Content-Encoding` of streams. A proxy that compresses holds back what is too little for it,
and Caddy, Varnish and nginx do not heed `no-transform`: they leave alone what has an encoding.
RFC 9110 §8.4 would rather not see this one there; to clients it means what it says."""

CONDITIONS = (
    "HTTP_IF_MATCH",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_UNMODIFIED_SINCE",
)

View = Callable[..., HttpResponseBase]
Response = TypeVar("Response", bound=HttpResponseBase)


def never_cached(view: View) -> View:
    """Keep whatever a view answers out of every cache, and as the view made it."""

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return keep_as_it_is(request, catching_refusals(view, request, *args, **kwargs))

    return answer


def catching_refusals(
    view: View, request: HttpRequest, *args: Any, **kwargs: Any
) -> HttpResponseBase:
    """Call a view, and have Django make its page of an exception that it has a status for.

    Django would make it where nothing can be added any more: caches keep a 404 for a while.
    """
    try:
        return view(request, *args, **kwargs)
    except DJANGOS_ANSWERS as error:
        refusal: HttpResponseBase = response_for_exception(
            getattr(request, "_request", request), error
        )
        return refusal


def keep_as_it_is(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Keep an answer out of caches, and its body from being compressed.

    Django's GZipMiddleware would make a gzip member of each chunk of a stream, of which browsers
    read the first one only, and a GRIP proxy sends on what it is told to send.
    """
    request.META["HTTP_ACCEPT_ENCODING"] = "identity"
    return keep_out_of_caches(request, response)


def keep_out_of_caches(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Let no cache store an answer, nor any middleware answer that nothing has changed.

    The header says it to all. What is done to the request says it again to Django's middleware,
    which would otherwise go by what a middleware between has made of the header.
    """
    response["Cache-Control"] = CACHE_CONTROL
    # Django REST framework's request has one of Django's inside.
    asked: Any = getattr(request, "_request", request)
    asked._cache_update_cache = False
    for header in CONDITIONS:
        asked.META.pop(header, None)
    # Django keeps a copy, in which other middleware may look.
    asked.__dict__.pop("headers", None)
    return response


def finish_headers(request: HttpRequest, response: Response) -> Response:
    """Keep caches, compression and buffering proxies away from a stream."""
    keep_as_it_is(request, response)
    forbid_buffering(response)
    add_cors_headers(request, response)
    return response


def retry_response() -> HttpResponse:
    """Return a stream that ends, and says when to come back; its headers are to be finished."""
    body = sse.encode_retry(random.randint(*RETRY_MILLISECONDS))
    return HttpResponse(body, content_type=sse.CONTENT_TYPE)


def forbid_buffering(response: HttpResponseBase) -> None:
    """Let proxies send on each part of a stream at once, and as it is."""
    response["X-Accel-Buffering"] = "no"
    response.headers.setdefault("Content-Encoding", NO_ENCODING)


def error_response(request: HttpRequest, error: EventStreamError) -> HttpResponseBase:
    """Tell the client of an error, in a way that a browser's EventSource acts on rightly.

    Other statuses than 200 end an EventSource for good and in silence (WHATWG HTML §9.2.3), so
    an error is an event. The client that comes back after one is turned away for good; the one
    that met an unreachable log is asked to try again, and keeps its cursor.

    A client that does not ask as an EventSource does gets the same event, and the error's status.
    """
    if isinstance(error, SessionEndedError):
        return finish_headers(
            request, HttpResponse(f"{error}\n", status=400, content_type="text/plain")
        )
    if isinstance(error, StorageUnavailableError):
        logger.warning("A stream could not start: %s", error)
        response = retry_response()
    else:
        if not isinstance(error, EventPermissionError | BadRequestError):
            reason = error.__cause__ or error
            logger.error("A stream could not start: %r", reason, exc_info=error)
        body = sse.encode_error(error.condition, str(error), error.channels)
        response = HttpResponse(body, content_type=sse.CONTENT_TYPE)
    if not _is_event_source(request):
        response.status_code = error.status
    return finish_headers(request, response)


def _is_event_source(request: HttpRequest) -> bool:
    """Say whether a client asks as `EventSource` does, and what takes its place.

    Each names the type in `Accept`. One that comes back says where it stands.
    """
    accepted = request.headers.get("Accept", "")
    return sse.CONTENT_TYPE in accepted or "Last-Event-ID" in request.headers
