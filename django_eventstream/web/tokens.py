"""Signed tokens in the path of a link to the next page: what to send next, and to whom.

A page may say what a user may read, and nothing but the token says who that is. A proxy follows
the link at once, so a token is good for no more than two minutes, whoever has found it in a log.
Within a minute it is equal for equal contents, since proxies let equal links share one request.
"""

from __future__ import annotations

import time

from django.core.signing import BadSignature, Signer

from django_eventstream.cursors import Cursor
from django_eventstream.exceptions import BadRequestError
from django_eventstream.grip import Position

SALT = "django_eventstream.page"

WINDOW_SECONDS = 60
"""Tokens of one window are equal. They hold to the end of the next one."""


def make_token(position: Position) -> str:
    """Sign where a page begins, and whose it is; the characters fit a URL's path."""
    contents = {
        "u": position.user_id,
        "r": sorted(position.reliable),
        "v": sorted(position.unreliable),
        "p": dict(sorted(position.cursor.positions.items())),
        "e": position.cursor.epoch,
        "t": _window(),
    }
    return Signer(salt=SALT).sign_object(contents, compress=True)


def read_token(text: str) -> Position:
    """Check and read a token; raises `BadRequestError` if it is not ours or too old."""
    try:
        contents = Signer(salt=SALT).unsign_object(text)
    except (BadSignature, ValueError) as error:
        raise BadRequestError("Invalid recovery token") from error
    if not 0 <= _window() - contents["t"] <= 1:
        raise BadRequestError("Expired recovery token")
    return Position(
        user_id=contents["u"],
        reliable=frozenset(contents["r"]),
        unreliable=frozenset(contents["v"]),
        cursor=Cursor(contents["p"], contents["e"]),
    )


def _window() -> int:
    return int(time.time() // WINDOW_SECONDS)
