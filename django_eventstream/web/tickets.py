"""Tickets: a client that was cut off a moment ago comes back without Django being asked.

A project opts in, by `get_ticket_seconds()` of its channel manager. A ticket travels as the last
part of a cursor (see `cursors.py`), in the first frame of a stream and in the last one of a server
that stops. It stands for what Django had decided: user, channels and response headers. It is sealed
for one kind of request, with all its headers but those that differ from one connection to the next,
and for the channels that its cursor names: it is good for nobody else, and a browser that has lost
or changed a cookie, as a logout does, is no more the same.

**A chain of tickets ends.** A client that is taken back is given a ticket again, but that one
begins where the first one did: when a stream that Django itself had let in was given it. Behind its
end, 300 seconds later at most, there is no ticket and none is honoured, and Django is asked.

A ticket does not carry response headers, which would be long. It names the set of them, and a
process that has not seen such a set yet asks Django, and has seen it then.

Whatever is not exactly right is not honoured, and Django is asked as ever.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from django_eventstream.cursors import MAX_WITH_TICKET, Cursor, split_ticket
from django_eventstream.hold import Hold
from django_eventstream.hub.holder import Message
from django_eventstream.hub.revocations import ControlMark
from django_eventstream.proxies import is_proxy_required
from django_eventstream.web.asking import Scope
from django_eventstream.web.fingerprint import fingerprint
from django_eventstream.web.header_sets import DIGEST_BYTES, HeaderSets
from django_eventstream.web.requests import authorize_again
from django_eventstream.web.sealing import seal, unseal

SALT = "django_eventstream.ticket.2"
"""The number grows when older tickets cannot be read any more."""

LONGEST_LIFE = 300
"""Seconds of a chain. What the control channel said is kept for an hour, and must reach back
further."""

FASTEST_CLOCK = 5
"""Seconds by which the clock of another server may be ahead."""

LONGEST = 299
"""Characters: it stands in headers and logs. Where many long names of channels without a log do not
fit, Django is asked."""


@dataclass(frozen=True, slots=True)
class Returning:
    """What a ticket that is honoured stands for."""

    hold: Hold
    start: Message
    mark: ControlMark
    """Revocations up to here were heeded when it was issued."""


class Ticket(NamedTuple):
    """What stands in a ticket."""

    headers: bytes
    """Digest of the headers of Django's response; see `HeaderSets`."""

    user_id: str | None
    unreliable: tuple[str, ...]
    """Those with a log stand in the cursor, and in what it is sealed for."""

    seconds: int
    """How long its chain lasts."""

    began: int
    """When its chain did, in seconds since 1970."""

    epoch: int
    control_id: int

    def pack(self) -> bytes:
        """Return the content; `unpack()` reads it."""
        text = json.dumps(self[1:], separators=(",", ":"), ensure_ascii=False)
        # Nine bits of window and the least of memory take a tenth of the time of the default.
        compressor = zlib.compressobj(9, zlib.DEFLATED, -9, 1)
        packed = compressor.compress(text.encode("utf-8", "surrogatepass"))
        return self.headers + packed + compressor.flush()

    @classmethod
    def unpack(cls, content: bytes) -> Ticket:
        """Read content that was sealed here, and so is as we made it."""
        text = zlib.decompress(content[DIGEST_BYTES:], -9).decode("utf-8", "surrogatepass")
        user_id, unreliable, *numbers = json.loads(text)
        return cls(content[:DIGEST_BYTES], user_id, tuple(unreliable), *numbers)


class Tickets:
    """Makes and reads tickets. Any thread and any event loop may use it, and a child of a fork.

    `mark()` tells up to where revocations have been heeded by whoever holds the streams, or None
    where nobody knows; `clock()` is `time.time()`.
    """

    def __init__(
        self, mark: Callable[[], ControlMark | None], clock: Callable[[], float] = time.time
    ) -> None:
        self._mark = mark
        self._clock = clock
        self._header_sets = HeaderSets()

    def stamp_for(self, scope: Scope, start: Message, hold: Hold) -> Callable[[], str] | None:
        """Return what makes tickets for a stream that Django let in; None where it gets none."""
        seconds = min(hold.ticket_seconds, LONGEST_LIFE)
        if seconds <= 0 or not hold.reliable:
            return None
        headers = self._header_sets.learn(start["headers"])
        if headers is None:
            return None
        ticket = Ticket(headers, hold.user_id, hold.unreliable, seconds, 0, 0, 0)
        return partial(self._issue_first, ticket, fingerprint(scope, hold.reliable))

    def read(self, scope: Scope) -> Returning | None:
        """Return what the ticket of a request stands for; None if it has none that is in order."""
        text, sealed = split_ticket(_last_event_id(scope))
        if not sealed or len(sealed) > LONGEST or is_proxy_required():
            return None
        cursor = Cursor.parse(text)
        context = fingerprint(scope, cursor.positions)
        content = unseal(sealed, context, SALT)
        if content is None:
            return None
        ticket = Ticket.unpack(content)
        headers = self._header_sets.find(ticket.headers)
        if headers is None or not self._is_in_time(ticket):
            return None
        hold = _hold(ticket, cursor, partial(self._issue, ticket, context))
        start = {"type": "http.response.start", "status": 200, "headers": list(headers)}
        return Returning(hold, start, ControlMark(ticket.epoch, ticket.control_id))

    def _issue_first(self, ticket: Ticket, context: bytes) -> str:
        return self._issue(ticket._replace(began=int(self._clock())), context)

    def _issue(self, ticket: Ticket, context: bytes) -> str:
        """Return a ticket of the same chain; empty if the chain is over, or it cannot be now."""
        mark = self._mark()
        if mark is None or not self._is_in_time(ticket):
            return ""
        marked = ticket._replace(epoch=mark.epoch, control_id=mark.id)
        sealed = seal(marked.pack(), context, SALT)
        return sealed if len(sealed) <= LONGEST else ""

    def _is_in_time(self, ticket: Ticket) -> bool:
        return -FASTEST_CLOCK <= self._clock() - ticket.began <= ticket.seconds


def _hold(ticket: Ticket, cursor: Cursor, stamp: Callable[[], str]) -> Hold:
    reliable = tuple(sorted(cursor.positions))
    return Hold(
        reliable=reliable,
        unreliable=ticket.unreliable,
        cursor=cursor,
        user_id=ticket.user_id,
        authorized_at=time.monotonic(),
        authorize=partial(authorize_again, ticket.user_id, (*reliable, *ticket.unreliable)),
        ticket_seconds=ticket.seconds,
        stamp=stamp,
    )


def _last_event_id(scope: Scope) -> str:
    """Return the header, as `parse_cursor()` does; what is in a query is left to Django."""
    given: list[bytes] = [value for name, value in scope["headers"] if name == b"last-event-id"]
    if len(given) != 1 or len(given[0]) > MAX_WITH_TICKET:
        return ""
    return given[0].decode("latin-1")
