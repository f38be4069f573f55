"""A hold honoured by a GRIP proxy: the answer that tells it what to hold and where to ask next."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from gripcontrol import Channel, create_grip_channel_header

from django_eventstream import grip, sse
from django_eventstream.backends import get_storage
from django_eventstream.catchup import Batch, catch_up
from django_eventstream.conf import settings
from django_eventstream.cursors import Cursor, format_cursor
from django_eventstream.exceptions import EventStreamError
from django_eventstream.grip import Position
from django_eventstream.hold import Hold
from django_eventstream.outbox import look
from django_eventstream.proxies import can_verify, channel_prefix
from django_eventstream.web.proofs import is_told, prove
from django_eventstream.web.proxy import is_proxied, predecessors_position_of
from django_eventstream.web.requests import written_path
from django_eventstream.web.tokens import make_token

FIRST_BODY_BYTES = 40_000
"""Room of a first body. A proxy that filters it answers 502 beyond 100,000, and escaping may
double it; answers of recovery requests have no such limit."""

PAGE_BYTES = 100_000
"""Room of the pages that follow."""

JITTER = 0.2
"""Part by which recovery periods differ. Connections of one period and link ask together."""

LONGEST_PERIOD = 2_147_483
"""Seconds; longer ones overflow in the proxy, which then never asks."""

LONGEST_PATH = 3_500
"""Characters; servers refuse request lines beyond about 4,000, and the stream would never go on."""

RETURN_MILLISECONDS = (1_000, 5_000)
"""When a client comes back whose stream ended because the proxy may not be told what it missed;
spread, since all who missed the same event come back."""

PAGE_RETURN_MILLISECONDS = 100
"""When it comes back for the next page. What is held in the end sets the longer time again."""

LINK_NAME = "eventstream-next"

TOKEN = "eventstream_token"
"""Keyword of the URL by which a page is asked for."""


def hold_response(request: HttpRequest, hold: Hold, *, is_open: bool = False) -> HttpResponse:
    """Answer a client's own request: the proxy sends the body and holds, or asks for more.

    `is_open` says that any visitor may make the request, as far as the view knows. Where the proxy
    may not be told what the client misses later, the client comes back itself.
    """
    batch = _catch_up(hold, FIRST_BODY_BYTES, at_least_one=False)
    opening = sse.encode_open(_written(hold, batch.start))
    if not is_told(hold.user_id, is_open=is_open):
        if batch.has_more:
            return _page_for_client(hold)
        opening += sse.encode_retry(random.randint(*RETURN_MILLISECONDS))
    return _answer(request, hold, batch, opening + b"".join(batch.frames), is_open=is_open)


def recovery_response(
    request: HttpRequest, hold: Hold, proof: str = "", *, is_open: bool = False
) -> HttpResponse:
    """Answer a proxy that asks, with this proof, what a connection has missed.

    A proxy that may not be told goes on holding it if that is nothing. Its proof is not made
    anew: when that is too old the stream ends, and the client comes back by itself.
    """
    batch = _catch_up(hold, PAGE_BYTES, at_least_one=True)
    if is_told(hold.user_id, is_open=is_open):
        return _answer(request, hold, batch, b"".join(batch.frames), is_open=is_open)
    return end_response() if batch.frames else _answer(request, hold, batch, b"", proof=proof)


def end_response(body: bytes = b"", position: Position | None = None) -> HttpResponse:
    """Answer a proxy that a stream is over; `position` is that of its connection."""
    response = HttpResponse(content_type=sse.CONTENT_TYPE)
    if position is not None:
        _add_channels(response, replace(position, proof=""))
        if position.reliable:
            body = grip.escape(body)
    response.content = body
    return response


def end_of_predecessor(request: HttpRequest) -> HttpResponse:
    """Answer a proxy that asks for a connection which django-eventstream 5 held: it is over.

    Whose it is stands only in the query, by which proxies merge what they ask, so nobody may be
    answered by it. The client comes back by itself and says who it is; where it stands, which it
    may not know, it is told as it goes.
    """
    if not is_proxied(request):
        return end_response()
    position = predecessors_position_of(request)
    if not position.reliable:
        return end_response()
    cursor = format_cursor(sorted(position.cursor.positions.items()))
    return end_response(sse.encode_position(cursor), position)


def _catch_up(hold: Hold, room: int, *, at_least_one: bool) -> Batch:
    storage = get_storage()
    if storage is None or not hold.reliable:
        return Batch(Cursor(), (), Cursor(), has_more=False)
    position = look(storage, hold.reliable)
    return catch_up(storage, hold, position, room=room, at_least_one=at_least_one)


def _page_for_client(hold: Hold) -> HttpResponse:
    """Answer with a part of a long history and no hold: the client comes back for the rest."""
    batch = _catch_up(hold, PAGE_BYTES, at_least_one=True)
    opening = sse.encode_open(_written(hold, batch.start))
    retry = sse.encode_retry(PAGE_RETURN_MILLISECONDS)
    return HttpResponse(b"".join([opening, retry, *batch.frames]), content_type=sse.CONTENT_TYPE)


def _answer(
    request: HttpRequest,
    hold: Hold,
    batch: Batch,
    body: bytes,
    *,
    proof: str | None = None,
    is_open: bool = False,
) -> HttpResponse:
    position = Position(
        hold.user_id, frozenset(hold.reliable), frozenset(hold.unreliable), batch.end
    )
    response = HttpResponse(
        grip.escape(body) if hold.reliable else body, content_type=sse.CONTENT_TYPE
    )
    if batch.has_more and (path := _page_path(request, position)):
        # Also a page that is not held: its filters are those that its body is escaped for.
        _add_channels(response, position)
        response["Grip-Link"] = grip.next_link(path)
        return response
    proven = prove(position, is_open=is_open) if proof is None else replace(position, proof=proof)
    _add_channels(response, proven)
    response["Grip-Hold"] = "stream"
    response["Grip-Keep-Alive"] = grip.keep_alive(sse.KEEP_ALIVE, settings.KEEP_ALIVE_SECONDS)
    # Without an address for a token the proxy has to hold before it can ask for the next page.
    seconds = 1 if batch.has_more else _period()
    response["Grip-Link"] = grip.next_link(_recovery_path(request), seconds)
    return response


def _add_channels(response: HttpResponse, position: Position) -> None:
    prefix = channel_prefix()
    reliable, unreliable = sorted(position.reliable), sorted(position.unreliable)
    user_id, end = position.user_id, position.cursor
    channels = [_reliable(name, end.positions.get(name, 0), prefix) for name in reliable]
    channels += [_unreliable(name, prefix) for name in unreliable]
    personal_id = grip.personal_id(end.epoch, unreliable, position.proof)
    channels += [_personal(user_id, personal_id, prefix)]
    response["Grip-Channel"] = create_grip_channel_header(channels)
    meta = {} if user_id is None else {"user": grip.quote_user(user_id)}
    if reliable:
        meta["id_format"] = grip.id_format(reliable, end.epoch, prefix)
    if meta:
        response["Grip-Set-Meta"] = grip.set_meta(meta)


def _reliable(name: str, last_id: int, prefix: str) -> Channel:
    channel = Channel(grip.events_channel(name, prefix), prev_id=str(last_id))
    channel.filters = [grip.BUILD_ID, grip.SKIP_USERS]
    return channel


def _unreliable(name: str, prefix: str) -> Channel:
    channel = Channel(grip.events_channel(name, prefix))
    channel.filters = [grip.SKIP_USERS]
    return channel


def _personal(user_id: str | None, last_id: str, prefix: str) -> Channel:
    channel = Channel(grip.personal_channel(user_id, prefix), prev_id=last_id)
    channel.filters = [grip.REQUIRE_SUB]
    return channel


def _period() -> float:
    spread = random.uniform(1 - JITTER, 1 + JITTER)
    return min(settings.RECOVERY_SECONDS * spread, LONGEST_PERIOD)


def _recovery_path(request: HttpRequest) -> str:
    """Return where to ask for a held connection: one path for all, and what differs is proven."""
    if path := _reverse(request, {}):
        return path
    if not can_verify():
        # At the stream's own address nothing would tell such a request from a client's.
        raise EventStreamError(
            "A GRIP proxy without a key needs the recovery URLs: include("
            "'django_eventstream.urls') somewhere in the URL configuration"
        )
    return written_path(request)


def _page_path(request: HttpRequest, position: Position) -> str | None:
    path = _reverse(request, {TOKEN: make_token(position)})
    return path if path is not None and len(path) <= LONGEST_PATH else None


def _reverse(request: HttpRequest, arguments: dict[str, str]) -> str | None:
    """Return the recovery URL: the same for all streams if possible, else beside this one."""
    match = request.resolver_match
    captured = _captured(match) if match else {}
    names = [LINK_NAME, *([f"{match.namespace}:{LINK_NAME}"] if match and match.namespace else [])]
    for beside in ({}, captured):
        for name in names:
            try:
                return reverse(name, kwargs={**beside, **arguments})
            except NoReverseMatch:
                continue
    return None


def _captured(match: Any) -> dict[str, Any]:
    """Return what the URL said of where the stream is, whichever page of it was asked for.

    Django's `captured_kwargs` lacks what stands before an `include()`.
    """
    others = {TOKEN, *(match.extra_kwargs or ())}
    return {name: value for name, value in match.kwargs.items() if name not in others}


def _written(hold: Hold, cursor: Cursor) -> str:
    return format_cursor(((name, cursor.positions[name]) for name in hold.reliable), cursor.epoch)
