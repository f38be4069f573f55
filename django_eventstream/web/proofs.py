"""Proofs that a position in `Grip-Last` is of a connection that we authorised.

A proxy's signature says that a request came through it, and not who wrote its headers: it removes
`Grip-Last` from what clients send, but not `Grip_Last`, which some servers take for the same name.
So the id of the personal channel carries a MAC over everything that a recovery is answered by, but
for the ids of the events, which are the proxy's own state. Equal audiences have equal proofs for
an hour, so that a proxy may let them share a request. A proof that got into an error report is of
no use after some hours.

Where no proxy has a key, clients can ask in the proxy's name and are told proofs. A user's name is
then believed for no longer than a proxy needs to take over a connection. Those who are not logged
in have no name, and what they may read is asked again.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace

from django.core.signing import Signer
from django.utils.crypto import constant_time_compare

from django_eventstream.backends import get_channel_manager
from django_eventstream.channelmanager import DefaultChannelManager
from django_eventstream.conf import settings
from django_eventstream.grip import Position
from django_eventstream.proxies import can_verify, channel_prefix

SALT = "django_eventstream.position"

_TIME = re.compile(r"[0-9]{1,15}", re.ASCII)

OPEN = ".open"
"""Ends a proof of a stream that any visitor may open, where nothing can be verified."""

MAC_LENGTH = 22
"""Characters of a MAC: 132 bits in base64."""

TAKEOVER_SECONDS = 30
"""How long a proxy that is not told anything may ask, counted from the client's own request. It
asks 1.1 s after a channel had its first reader (Pushpin 1.36), or when the others have been asked
for, of which it asks for a thousand a second."""

WINDOW_SECONDS = 60 * 60
"""Proofs of one window are equal, for a proxy that is told."""

PERIODS = 3
"""How many times the recovery period a proof outlives its window. Pushpin asks for an idle
connection after one to two periods, which are longer by a fifth for some."""


def is_told(user_id: str | None, *, is_open: bool) -> bool:
    """Say whether a proxy that asks for a connection is told what it missed.

    Without a key anybody may be asking, who is told what any visitor may read at the address of
    the stream. Somebody who is not logged in may have got more, where a view in front of ours has
    looked at the request (`is_open` is false), or the channel manager does to name the channels:
    at a signature, say.
    """
    return can_verify() or (is_open and user_id is None and _is_naming_free())


def prove(position: Position, *, is_open: bool) -> Position:
    """Return the position with a proof that is believed when it comes back."""
    now = int(time.time())
    issued_at = now - now % WINDOW_SECONDS if is_told(position.user_id, is_open=is_open) else now
    # Where it makes no difference equal audiences have equal proofs.
    kind = OPEN if is_open and not can_verify() else ""
    mac = _mac(Signer(salt=SALT), position, issued_at, kind)
    return replace(position, proof=f"{issued_at}.{mac}{kind}")


def is_of_open(proof: str) -> bool:
    """Say whether a proof, once it is checked, is of a stream that any visitor may open."""
    return proof.endswith(OPEN)


def is_proven(position: Position) -> bool:
    """Say whether we authorised a connection of just this user and these channels."""
    kind = OPEN if is_of_open(position.proof) else ""
    time_text, _, mac = position.proof.removesuffix(kind).partition(".")
    told = is_told(position.user_id, is_open=bool(kind))
    if not _TIME.fullmatch(time_text) or not _is_recent(int(time_text), told):
        return False
    signer = Signer(salt=SALT)
    return any(
        constant_time_compare(mac, _mac(signer, position, int(time_text), kind, key))
        for key in (signer.key, *signer.fallback_keys)
    )


def _mac(
    signer: Signer, position: Position, issued_at: int, kind: str, key: str | bytes | None = None
) -> str:
    said = [
        # A proof that clients were told is none any more when the proxy has got its key.
        can_verify(),
        channel_prefix(),
        position.user_id,
        sorted(position.reliable),
        sorted(position.unreliable),
        position.cursor.epoch or 0,
        issued_at,
        kind,
    ]
    return signer.signature(json.dumps(said), key)[:MAC_LENGTH]


def _is_recent(issued_at: int, told: bool) -> bool:
    long = WINDOW_SECONDS + PERIODS * settings.RECOVERY_SECONDS
    longest = long if told else TAKEOVER_SECONDS
    # Clocks of several servers differ a little, both ways.
    return abs(time.time() - issued_at) <= longest


def _is_naming_free() -> bool:
    default = DefaultChannelManager.get_channels_for_request
    return type(get_channel_manager()).get_channels_for_request is default
