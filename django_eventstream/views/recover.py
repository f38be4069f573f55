"""What a GRIP proxy asks for the connections that it holds."""

from __future__ import annotations

import logging
import time
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden, HttpResponseNotAllowed
from django.views.decorators.csrf import csrf_exempt

from django_eventstream import sse
from django_eventstream.exceptions import (
    BadRequestError,
    EventPermissionError,
    EventStreamError,
)
from django_eventstream.grip import Position
from django_eventstream.hold import Hold
from django_eventstream.proxies import get_proxies
from django_eventstream.web.asking import never_atomic
from django_eventstream.web.grip import end_of_predecessor, end_response, recovery_response
from django_eventstream.web.proofs import is_of_open, is_told
from django_eventstream.web.proxy import (
    is_of_predecessor,
    is_proxied,
    position_of,
    report_unverified,
)
from django_eventstream.web.requests import find_user, make_hold
from django_eventstream.web.responses import never_cached
from django_eventstream.web.tokens import read_token

logger = logging.getLogger(__name__)

METHODS = ["GET", "HEAD"]


@csrf_exempt
@login_not_required
@never_atomic
@never_cached
def recover(
    request: HttpRequest, eventstream_token: str | None = None, **kwargs: Any
) -> HttpResponse:
    """Answer what a held connection has missed, if its user may still read its channels.

    Only what is proven to be of a connection of ours gets an answer with something in it. The
    stream of a user who may not read any more ends with `stream-error`; one that cannot be told
    any more ends in silence, and the client comes back by itself.
    """
    if request.method not in METHODS:
        return HttpResponseNotAllowed(METHODS)
    if is_of_predecessor(request):
        return end_of_predecessor(request)
    if not is_proxied(request):
        if request.headers.get("Grip-Sig") and get_proxies():
            report_unverified(request)
        return HttpResponseForbidden("This address is for GRIP proxies.\n", "text/plain")
    token = eventstream_token
    position = position_of(request) if token is None else _position_of_page(token)
    if position is None:
        return end_response()
    try:
        hold = _make_hold(position)
    except (EventPermissionError, BadRequestError) as error:
        body = sse.encode_error(error.condition, str(error), error.channels)
        return end_response(body, position)
    except EventStreamError as error:
        return _try_again(error)
    if frozenset(hold.reliable) != position.reliable:
        # Another filter list than the connection's: a new connection gets the right one.
        return end_response()
    try:
        # What goes on by a token was told before.
        is_open = token is not None or is_of_open(position.proof)
        return recovery_response(request, hold, position.proof, is_open=is_open)
    except EventStreamError as error:
        return _try_again(error)


def _position_of_page(token: str) -> Position | None:
    try:
        position = read_token(token)
    except BadRequestError:
        return None
    # Without a key there are none for users, or they are of a time when there was a key.
    return position if is_told(position.user_id, is_open=True) else None


def _make_hold(position: Position) -> Hold:
    authorized_at = time.monotonic()
    names = position.reliable | position.unreliable
    user = find_user(position.user_id, names)
    return make_hold(names, position.cursor, user, authorized_at)


def _try_again(error: EventStreamError) -> HttpResponse:
    """The proxy asks again after 1, 2, 4 … seconds, and the client's events wait there."""
    logger.error("A recovery request could not be answered", exc_info=error)
    return HttpResponse("Try again later.\n", status=503, content_type="text/plain")
