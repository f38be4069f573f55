"""`Grip-Last` as a proxy writes it, of connections that we authorised and of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from django.http import HttpResponseBase

from django_eventstream import grip
from django_eventstream.cursors import Cursor
from django_eventstream.grip import Position
from django_eventstream.proxies import channel_prefix
from django_eventstream.web.proofs import prove


def last_of(held: HttpResponseBase, **moved: int) -> str:
    """What a proxy says of a connection that it holds by this answer.

    It has meanwhile seen the ids that are given by channel.
    """
    return last_in(held["Grip-Channel"], **moved)


def last_in(header: str, **moved: int) -> str:
    """The same, of the `Grip-Channel` of the answer."""
    parts = []
    for channel in header.split(", "):
        name, *parameters = channel.split("; ")
        ids = [text.partition("=")[2] for text in parameters if text.startswith("prev-id=")]
        ids += [str(moved[each]) for each in moved if name == grip.events_channel(each)]
        parts += [f"{name}; last-id={ids[-1]}"] if ids else []
    return ", ".join(parts)


def proven_last(
    ids: Mapping[str, int],
    user_id: str | None = None,
    unreliable: Iterable[str] = (),
    epoch: int = 0,
) -> str:
    """`Grip-Last` with a proof of ours, whether or not anybody has such a connection."""
    position = Position(user_id, frozenset(ids), frozenset(unreliable), Cursor(ids, epoch))
    return written(prove(position, is_open=True))


def written(position: Position) -> str:
    """`Grip-Last` that says this, proven or not."""
    prefix = channel_prefix()
    parts = [
        f"{grip.events_channel(name, prefix)}; last-id={position.cursor.positions[name]}"
        for name in sorted(position.reliable)
    ]
    personal = grip.personal_id(position.cursor.epoch, position.unreliable, position.proof)
    parts.append(f"{grip.personal_channel(position.user_id, prefix)}; last-id={personal}")
    return ", ".join(parts)
