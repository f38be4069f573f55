"""Proofs that a position in `Grip-Last` is of a connection that we authorised.

A proxy's signature says that a request came through it, and not who wrote its headers: it removes
`Grip-Last` from what clients send, but not `Grip_Last`, which some servers take for the same name.
So the id of the personal channel carries a MAC over everything that a recovery is answered by, but
for the ids of the events, which are the proxy's own state. Equal audiences have equal proofs, so
that a proxy may let them share a request.

Where no proxy has a key, clients can ask in the proxy's name and are told proofs, so those have a
time in them. Without a key nobody's name is believed for longer than a proxy needs to take over a
connection; those who are not logged in have no name, and what they may read is asked again.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace

from django.core.signing import Signer
from django.utils.crypto import constant_time_compare

from django_eventstream.grip import Position
from django_eventstream.proxies import can_verify, channel_prefix

SALT = "django_eventstream.position"

MAC_LENGTH = 22
"""Characters of a MAC: 132 bits in base64."""

TAKEOVER_SECONDS = 30
"""How long a proxy without a key may ask in a user's name, counted from the user's own request.
It asks 1.1 s after a channel had its first reader (Pushpin 1.36), or when a thousand others that
came before have been asked for."""

WINDOW_SECONDS = 6 * 60 * 60
"""Proofs without a name, made within one window for a proxy without a key, are equal. They hold to
the end of the next one: longer than any time between two recoveries of a connection."""


def prove(position: Position) -> Position:
    """Return the position with a proof that is believed when it comes back."""
    issued_at = None if can_verify() else _time_of_issue(position)
    mac = _mac(Signer(salt=SALT), position, issued_at)
    return replace(position, proof=mac if issued_at is None else f"{issued_at}.{mac}")


def is_proven(position: Position) -> bool:
    """Say whether we authorised a connection of just this user and these channels."""
    time_text, _, mac = position.proof.rpartition(".")
    issued_at = _parse_time(time_text)
    if can_verify() != (not time_text) or not _is_recent(position, issued_at):
        return False
    signer = Signer(salt=SALT)
    return any(
        constant_time_compare(mac, _mac(signer, position, issued_at, key))
        for key in (signer.key, *signer.fallback_keys)
    )


def _mac(
    signer: Signer, position: Position, issued_at: int | None, key: str | bytes | None = None
) -> str:
    said = [
        channel_prefix(),
        position.user_id,
        sorted(position.reliable),
        sorted(position.unreliable),
        position.cursor.epoch,
        issued_at,
    ]
    return signer.signature(json.dumps(said), key)[:MAC_LENGTH]


def _time_of_issue(position: Position) -> int:
    now = int(time.time())
    return now - now % WINDOW_SECONDS if position.user_id is None else now


def _parse_time(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _is_recent(position: Position, issued_at: int | None) -> bool:
    if issued_at is None:
        return can_verify()
    longest = 2 * WINDOW_SECONDS if position.user_id is None else TAKEOVER_SECONDS
    # Clocks of several servers differ a little, both ways.
    return abs(time.time() - issued_at) <= longest
