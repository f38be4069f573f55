"""The vocabulary of GRIP: names, ids, filters and headers, as the proxies read them.

Three rules for what a stream holds, each learnt from a proxy's behaviour:

* Every channel of a connection that matters has a previous id, so that the proxy names it in
  `Grip-Last`. What else must come back with a recovery request stands in the id of the
  connection's personal channel, where nobody ever publishes an event; so does the proof that
  all of it comes from us.
* Every body of a stream with a log passes the filter that writes ids, in which `%` begins a
  directive: bodies are escaped whole.
* The filters of a connection never change, since proxies before 1.41 apply the old ones to the
  answers of recovery requests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from django_eventstream import sse
from django_eventstream.cursors import MAX_ID, Cursor
from django_eventstream.events import Event

EVENTS = "events-"
USER = "user-"
ANONYMOUS = "anonymous"

BUILD_ID = "build-id"
SKIP_USERS = "skip-users"
REQUIRE_SUB = "require-sub"

# Python refuses to read a number of more than 4,300 digits.
_EPOCH = re.compile(r"e[0-9]{1,30}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """What a recovery request says of a connection, in its `Grip-Last` headers."""

    user_id: str | None
    """Primary key of the user as text; None for somebody who is not logged in."""

    reliable: frozenset[str]
    unreliable: frozenset[str]

    cursor: Cursor

    proof: str = ""
    """That this package said all of it but the ids, which are the proxy's own state; see
    `web.proofs`. Letters, digits and `-._~`; "" claims nothing."""


def events_channel(channel: str, prefix: str = "") -> str:
    """Return the proxy's channel that carries the events of a channel."""
    return f"{prefix}{EVENTS}{quote(channel)}"


def personal_channel(user_id: str | None, prefix: str = "") -> str:
    """Return the proxy's channel on which only this user's connections are."""
    return f"{prefix}{USER}{quote_user(user_id)}"


def quote_user(user_id: str | None) -> str:
    """Write a user's id so that it fits a header, a list and a channel name."""
    if user_id is None:
        return ANONYMOUS
    # Somebody whose key is that very word must not share a channel with those who have none.
    return f"%61{ANONYMOUS[1:]}" if user_id == ANONYMOUS else quote(user_id, safe="")


def personal_id(epoch: int | None, unreliable: Iterable[str], proof: str = "") -> str:
    """Write what `Grip-Last` does not say otherwise, as the id of the personal channel."""
    first = f"e{epoch or 0}.{proof}" if proof else f"e{epoch or 0}"
    return "+".join([first, *(quote(name, safe="") for name in sorted(unreliable))])


def escape(body: bytes) -> bytes:
    """Escape a body, or an event's content, that passes the filter that writes ids."""
    return body.replace(b"%", b"%%")


def id_format(reliable: Iterable[str], epoch: int | None, prefix: str = "") -> str:
    """Return the pattern from which the proxy writes a stream's cursor for `%I`."""
    parts = [
        f"{quote(name).replace('%', '%%')}:%({events_channel(name, prefix)})s" for name in reliable
    ]
    return ",".join([*parts, f":{epoch}"] if epoch else parts)


def set_meta(values: Mapping[str, str]) -> str:
    """Return the value of `Grip-Set-Meta`."""
    return ", ".join(
        f'{name}="{value}"'
        for name, value in (
            (name, value.replace("\\", "\\\\").replace('"', '\\"'))
            for name, value in values.items()
        )
    )


def keep_alive(frame: bytes, seconds: float) -> str:
    """Return the value of `Grip-Keep-Alive`; the frame is text of the kind SSE is made of.

    It comes between events as well: those of types that a page does not listen for tell it nothing.
    """
    text = frame.decode().replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
    return f"{text}; format=cstring; mode=interval; timeout={max(1, round(seconds))}"


def next_link(path: str, seconds: float | None = None) -> str:
    """Return the value of `Grip-Link` that says where and when to ask next.

    The path is percent-encoded, as in a URI. A proxy looks for the ends of a link and of its
    parameters within `<>` as well, against RFC 8288 §3.
    """
    timeout = "" if seconds is None else f"; timeout={max(1, round(seconds))}"
    return f"<{path.replace(',', '%2C').replace(';', '%3B')}>; rel=next{timeout}"


def parse_last(header: str) -> dict[str, str]:
    """Read `Grip-Last`, several of which a server joins by commas: proxy channel → last id."""
    found: dict[str, str] = {}
    for part in header.split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip().lower() == "last-id" and name:
                found[name] = value.strip().strip('"')
    return found


def parse_position(last: Mapping[str, str], prefix: str = "") -> Position | None:
    """Understand what `parse_last()` read; None if it does not look like a hold of ours.

    Whether it is one only its proof tells.
    """
    reliable, positions = _parse_events(last, prefix)
    users = [
        (name[len(prefix + USER) :], last_id)
        for name, last_id in last.items()
        if name.startswith(prefix + USER)
    ]
    if len(users) != 1:
        return None
    [(user, state)] = users
    first, *unreliable = state.split("+")
    epoch, _, proof = first.partition(".")
    if not _EPOCH.fullmatch(epoch):
        return None
    return Position(
        user_id=None if user == ANONYMOUS else unquote(user),
        reliable=reliable,
        unreliable=frozenset(unquote(name) for name in unreliable),
        # A channel without a number is one that somebody else published to: start over there.
        cursor=Cursor(positions, int(epoch[1:]), is_readable=len(positions) == len(reliable)),
        proof=proof,
    )


def parse_position_of_predecessor(last: Mapping[str, str], prefix: str = "") -> Position:
    """Understand what `parse_last()` read of a connection that django-eventstream 5 held.

    Its stored channels and their ids are there; who it belongs to is not.
    """
    reliable, positions = _parse_events(last, prefix)
    cursor = Cursor(positions, epoch=0)
    return Position(None, reliable & positions.keys(), frozenset(), cursor)


def _parse_events(last: Mapping[str, str], prefix: str) -> tuple[frozenset[str], dict[str, int]]:
    positions: dict[str, int] = {}
    reliable: set[str] = set()
    for name, last_id in last.items():
        if name.startswith(prefix + EVENTS):
            channel = unquote(name[len(prefix + EVENTS) :])
            reliable.add(channel)
            if last_id.isascii() and last_id.isdigit():
                positions[channel] = min(int(last_id[:30]), MAX_ID)
    return frozenset(reliable), positions


# What is published


def event_item(event: Event, prefix: str = "") -> dict[str, Any]:
    """Return an event as an item to publish."""
    content = sse.encode_body(event.type, event.data)
    item: dict[str, Any] = {"channel": events_channel(event.channel, prefix)}
    if event.id is None:
        item["formats"] = {"http-stream": {"content": (content + b"\n").decode()}}
    else:
        item["id"] = str(event.id)
        item["prev-id"] = str(event.id - 1)
        item["formats"] = {"http-stream": _filtered(escape(content) + sse.encode_id("%I"))}
    if event.skip_user_ids:
        quoted = sorted(quote_user(user_id) for user_id in event.skip_user_ids)
        item["meta"] = {"skip_users": ",".join(quoted)}
    return item


def probe_item(channel: str, last_id: int, prefix: str = "") -> dict[str, Any]:
    """Return an item that lets every connection find out whether it has missed `last_id`.

    A connection at that id gets a comment; one that is behind asks for what it missed. The
    proxy itself drops the probe if that very id passed it within the last minute.
    """
    return {
        "channel": events_channel(channel, prefix),
        "id": str(last_id),
        "prev-id": str(last_id),
        "no-seq": True,
        "formats": {"http-stream": _filtered(b":\n\n")},
    }


def recheck_item(user_id: str | None, prefix: str = "") -> dict[str, Any]:
    """Return an item that makes each connection of a user ask again at once.

    It has no id, so that it may be repeated, and moves no position.
    """
    return {
        "channel": personal_channel(user_id, prefix),
        "formats": {"http-stream": {"action": "hint"}},
    }


def encode_item(item: Mapping[str, Any]) -> bytes:
    """Encode an item the way the proxy's publishing port reads it."""
    return json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode()


def _filtered(content: bytes) -> dict[str, Any]:
    # The list must be that of the connections, or the proxy closes them (1.36) or skips them.
    return {"content": content.decode(), "content-filters": [BUILD_ID]}
