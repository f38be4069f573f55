"""Answers: the headers of a stream, and the one map from errors to what a client sees."""

from __future__ import annotations

import logging
import random

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

logger = logging.getLogger(__name__)

RETRY_MILLISECONDS = (3_000, 8_000)
"""When to come back to a server that cannot reach its log, spread against stampedes."""


def finish_headers(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Keep caches, compression and buffering proxies away from a stream."""
    response["Cache-Control"] = "no-cache, no-transform"
    response["X-Accel-Buffering"] = "no"
    # Django's GZipMiddleware looks here. It would make a gzip member of each chunk, and browsers
    # read the first one only: they would see `stream-open` and no event.
    request.META["HTTP_ACCEPT_ENCODING"] = "identity"
    add_cors_headers(request, response)
    return response


def error_response(request: HttpRequest, error: EventStreamError) -> HttpResponseBase:
    """Tell the client of an error, in a way that a browser's EventSource acts on rightly.

    Other statuses than 200 end an EventSource for good and in silence (WHATWG HTML §9.2.3), so
    an error is an event. The client that comes back after one is turned away for good; the one
    that met an unreachable log is asked to try again, and keeps its cursor.
    """
    if isinstance(error, SessionEndedError):
        return finish_headers(
            request, HttpResponse(f"{error}\n", status=400, content_type="text/plain")
        )
    if isinstance(error, StorageUnavailableError):
        logger.warning("A stream could not start: %s", error)
        body = sse.encode_retry(random.randint(*RETRY_MILLISECONDS))
    else:
        if not isinstance(error, EventPermissionError | BadRequestError):
            logger.error("A stream could not start", exc_info=error)
        body = sse.encode_error(error.condition, str(error), error.channels)
    return finish_headers(request, HttpResponse(body, content_type=sse.CONTENT_TYPE))
