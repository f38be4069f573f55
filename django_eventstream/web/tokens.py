"""Signed tokens in the path of a recovery link: what `Grip-Last` cannot say or prove.

A token is equal for equal contents and for hours, since proxies let equal links share one request
and let different ones wait. It is not secret to those who have it, and clients never see it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from django.core.signing import BadSignature, Signer

from django_eventstream.cursors import Cursor
from django_eventstream.exceptions import BadRequestError

SALT = "django_eventstream.recovery"

WINDOW_SECONDS = 6 * 60 * 60
"""Tokens of one window are equal. They hold to the end of the next one, so for six hours at
least: longer than any time between two recoveries of a connection."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a recovery link says of the connections that ask with it."""

    user_id: str | None
    reliable: frozenset[str]
    unreliable: frozenset[str]
    cursor: Cursor | None = None
    """Where the next page begins; None if `Grip-Last` tells."""


def make_token(token: Token) -> str:
    """Sign a token; its characters fit a URL's path."""
    contents: dict[str, object] = {
        "u": token.user_id,
        "r": sorted(token.reliable),
        "v": sorted(token.unreliable),
        "t": _window(),
    }
    if token.cursor is not None:
        contents["p"] = dict(sorted(token.cursor.positions.items()))
        contents["e"] = token.cursor.epoch
    return Signer(salt=SALT).sign_object(contents, compress=True)


def read_token(text: str) -> Token:
    """Check and read a token; raises `BadRequestError` if it is not ours or too old."""
    try:
        contents = Signer(salt=SALT).unsign_object(text)
    except (BadSignature, ValueError) as error:
        raise BadRequestError("Invalid recovery token") from error
    if not 0 <= _window() - contents["t"] <= 1:
        raise BadRequestError("Expired recovery token")
    positions: Mapping[str, int] | None = contents.get("p")
    return Token(
        user_id=contents["u"],
        reliable=frozenset(contents["r"]),
        unreliable=frozenset(contents["v"]),
        cursor=None if positions is None else Cursor(positions, contents["e"]),
    )


def _window() -> int:
    return int(time.time() // WINDOW_SECONDS)
