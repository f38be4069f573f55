"""Server-sent events on the wire (WHATWG HTML §9.2): the only place that writes `data:`.

The `id:` line comes last: a client cut inside an event has not seen its id, and asks for the
event again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from django_eventstream.cursors import ERROR_CURSOR

CONTENT_TYPE = "text/event-stream"

PADDING = b":" + b" " * 2048 + b"\n"
"""First bytes of a stream: pushes it through what buffers its first kilobytes (antivirus
proxies, old browsers). The comment is part of the block that follows: fetch-event-source takes each
blank line for the end of a message."""

KEEP_ALIVE = b"event: keep-alive\ndata: \n\n"
"""A named event without id: it reaches the page's code and leaves the cursor alone."""

_NO_MESSAGE = b"event: keep-alive\n"
"""Begins a block without data, which nobody is to be told of: readers that pass it on all the same
do not take it for an empty message."""

_LINE_END = re.compile("\r\n|\r|\n")
_UNSAFE_IN_FIELD = str.maketrans("", "", "\r\n\x00")


def encode_body(event_type: str, data: str) -> bytes:
    """Encode the `event:` and `data:` lines of an event, without the line that ends it.

    Without an `event:` line it is a `message` (WHATWG HTML §9.2.6); htmx 4 swaps only those. Lone
    surrogates, which UTF-8 cannot carry and sending refuses, become `?`.
    """
    if "\n" in data or "\r" in data:
        data = _LINE_END.sub("\ndata: ", data)
    kind = "" if event_type == "message" else f"event: {_field(event_type)}\n"
    return f"{kind}data: {data}\n".encode(errors="replace")


def encode_id(cursor: str) -> bytes:
    """Encode the `id:` line and the blank line, which dispatches what came before."""
    return f"id: {_field(cursor)}\n\n".encode()


def encode_position(cursor: str) -> bytes:
    """Encode what moves the cursor and dispatches nothing."""
    return _NO_MESSAGE + encode_id(cursor)


def encode(event_type: str, data: str, cursor: str = "") -> bytes:
    """Encode a whole event; with an empty cursor it has no id."""
    return encode_body(event_type, data) + (encode_id(cursor) if cursor else b"\n")


def encode_open(cursor: str) -> bytes:
    """Encode the first event of a stream, which carries the position that it starts from."""
    return PADDING + encode("stream-open", "", cursor)


def encode_reset(reasons: Mapping[str, str], cursor: str) -> bytes:
    """Encode the news that these channels (channel → reason) cannot be resumed: start over."""
    data = {"channels": sorted(reasons), "reasons": dict(reasons)}
    return encode("stream-reset", json.dumps(data), cursor)


def encode_error(condition: str, text: str, channels: Iterable[str] = ()) -> bytes:
    """Encode the last event of a stream that ends for good."""
    data: dict[str, object] = {"condition": condition, "text": text}
    if listed := list(channels):
        data["channels"] = listed
    return encode("stream-error", json.dumps(data), ERROR_CURSOR)


def encode_retry(milliseconds: int) -> bytes:
    """Encode the time after which the client is to come back when the stream ends."""
    return _NO_MESSAGE + f"retry: {milliseconds}\n\n".encode()


def _field(value: str) -> str:
    return value if value.isprintable() else value.translate(_UNSAFE_IN_FIELD)
