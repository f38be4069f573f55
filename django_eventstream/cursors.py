"""Cursors: the position of a client, as it stands in `id:` and comes back in `Last-Event-ID`.

A cursor is a map channel → last id seen, written `quote(channel):id` and joined by commas. The
empty name, which no channel can have, is reserved: with a number it carries the epoch of the log
when it is not the first, with any other text a ticket, which is no part of the position.

`news:0` without an epoch asks for the channel from its beginning: people write it by hand, who know
no epoch. With an epoch, 0 is a position like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import quote, unquote_to_bytes

ERROR_CURSOR = "error"
"""The id of a `stream-error`: a client that brings it back must be turned away."""

MAX_CURSOR_LENGTH = 16_384
"""Longer ones are not read: no server in front of us lets such a header pass."""

MAX_WITH_TICKET = 4_000
"""Characters of a cursor that carries a ticket: a proxy may take no more than twice that."""

MAX_ID = 2**63 - 1
"""The largest number that the id column holds; a cursor may still say more."""

_NUMBER = re.compile(r"[0-9]{1,30}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in the log, for any number of channels."""

    positions: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Last id seen, by channel."""

    epoch: int | None = None
    """Which life of the log the positions belong to; None where it is not said: the first one."""

    is_readable: bool = True
    """False if some part of the text was not `name:number`: whoever sent it had a position
    that we do not understand, and must be told so rather than be started at now."""

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read any text that a client may send; what is not a position makes it unreadable."""
        if len(text) > MAX_CURSOR_LENGTH:
            return cls(is_readable=False)
        positions: dict[str, int] = {}
        epoch: int | None = None
        readable = True
        for part in text.split(","):
            name, separator, number = part.strip(" ").rpartition(":")
            channel = _unquote(name)
            if not separator or channel is None or not _NUMBER.fullmatch(number):
                is_ticket = bool(separator and number) and not name
                readable = readable and (is_ticket or not part.strip(" "))
            elif not channel:
                epoch = int(number)
            else:
                # Named twice, the lower one loses nothing.
                positions[channel] = min(int(number), positions.get(channel, MAX_ID))
        return cls(MappingProxyType(positions), epoch, readable)

    def only(self, channels: Iterable[str]) -> Cursor:
        """Return the position on these channels: a client may name thousands of others."""
        positions = {name: self.positions[name] for name in channels if name in self.positions}
        return replace(self, positions=MappingProxyType(positions))

    def __str__(self) -> str:
        text = format_cursor(self.positions.items(), self.epoch)
        return f"{text},:0" if text and self.epoch == 0 else text

    def asks_for_beginning(self, channel: str) -> bool:
        """Say whether the client wants all that is kept of a channel, in whatever epoch."""
        return self.epoch is None and self.positions.get(channel) == 0


def format_cursor(positions: Iterable[tuple[str, int]], epoch: int | None = None) -> str:
    """Write positions in the given order; ASCII only, so every header and proxy takes it.

    The first epoch is not written.
    """
    parts = [f"{_quote(channel)}:{last_id}" for channel, last_id in positions]
    if epoch and parts:
        parts.append(f":{epoch}")
    return ",".join(parts)


def with_ticket(cursor: str, ticket: str) -> str:
    """Add a ticket to a cursor that says something; none if the two would burst a header."""
    if not cursor or not ticket:
        return cursor
    text = f"{cursor},:{ticket}"
    return text if len(text) <= MAX_WITH_TICKET else cursor


def split_ticket(text: str) -> tuple[str, str]:
    """Divide what a client brought into the cursor and the ticket, which may be empty."""
    cursor, separator, ticket = text.rpartition(",:")
    return (text, "") if not separator or _NUMBER.fullmatch(ticket) else (cursor, ticket)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream begins: after which id of each channel, and which channels must start over."""

    positions: Mapping[str, int]
    resets: Mapping[str, str]
    """Channel → reason, for each whose position could not be resumed."""

    from_oldest: frozenset[str] = frozenset()
    """Channels that begin at the oldest event that is kept: where the one after their position is
    gone, they move on without a reset, as long as nothing of them has been sent."""


def resolve_start(
    channels: Iterable[str], cursor: Cursor | None, current_ids: Mapping[str, int], epoch: int
) -> Start:
    """Decide from what a client brought where each of its channels begins.

    `current_ids` has the last id of each channel that has a log. Whether the events after a
    position are still kept is found out by reading them.
    """
    positions: dict[str, int] = {}
    resets: dict[str, str] = {}
    from_oldest: set[str] = set()
    for channel in channels:
        current = current_ids[channel]
        reason = None if cursor is None else _reset_reason(channel, cursor, current, epoch)
        if reason is not None:
            resets[channel] = reason
        resumes = cursor is not None and reason is None
        positions[channel] = (
            cursor.positions.get(channel, current) if resumes and cursor else current
        )
        if current and cursor is not None and cursor.asks_for_beginning(channel):
            from_oldest.add(channel)
    return Start(positions, resets, frozenset(from_oldest))


def _reset_reason(channel: str, cursor: Cursor, current: int, epoch: int) -> str | None:
    position = cursor.positions.get(channel)
    if position is None:
        return None if cursor.is_readable else "unreadable"
    if cursor.asks_for_beginning(channel):
        return None
    if (cursor.epoch or 0) != epoch:
        return "epoch"
    return "ahead" if position > current else None


@lru_cache(maxsize=4_096)
def _quote(channel: str) -> str:
    return quote(channel)


def _unquote(name: str) -> str | None:
    try:
        return unquote_to_bytes(name).decode()
    except UnicodeError:
        return None
