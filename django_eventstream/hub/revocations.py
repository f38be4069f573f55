"""What permissions went while a client was away, for those who come back with a ticket.

A held stream ends when the hub hears on the control channel that its user lost a channel. Somebody
who was away heard nothing, and neither did a process that was not there yet: it reads the control
channel back to where the ticket was issued, once for all who bring a ticket of about that time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from django_eventstream.control import DISCONNECT, Disconnect, parse_disconnect
from django_eventstream.deadlines import within
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.exceptions import HistoryGoneError, StorageUnavailableError
from django_eventstream.hold import Hold
from django_eventstream.hub.channel import HeldChannel
from django_eventstream.hub.log import LogReader

logger = logging.getLogger(__name__)

PAGE = 500
PAGE_BYTES = 256 * 1024
"""Messages of one read, and about how many bytes they have at most."""

MOST_READ = 2_000
"""Messages further back than this are not read: Django is asked instead."""

MOST_REMEMBERED = 10_000
"""Revocations kept; then all are forgotten, and with them the tickets from before."""


WAIT_SECONDS = 4.0
"""How long a client with a ticket waits for the log. Then it is sent away: a stream that Django
permitted would wait for the log as well."""


class ControlMark(NamedTuple):
    """A place on the control channel: all that was said up to it has been heeded."""

    epoch: int
    id: int


class Revocations:
    """Knows what the control channel said from some id on. Belongs to one event loop."""

    def __init__(
        self,
        control: HeldChannel,
        log: LogReader,
        ask: Callable[[Iterable[str]], Awaitable[object]],
        epoch: Callable[[], int],
    ) -> None:
        self._control = control
        self._log = log
        self._ask = ask
        self._epoch = epoch
        self._reading: asyncio.Task[None] | None = None
        self._life = 0
        self._last: dict[tuple[str | None, str], int] = {}
        """User and channel → id of the last message that took the channel from the user."""
        self._after: int | None = None
        """Every message behind this id has been heard, up to the last one; None: not begun."""
        self._heard = 0
        self._floor = 0
        """Reading back beyond this id is of no use."""

    @property
    def mark(self) -> ControlMark | None:
        """Where the hub stands; None while it does not know."""
        if not self._control.is_positioned:
            return None
        return ControlMark(self._epoch(), self._control.window.last_id)

    def hear(self, event: Event) -> None:
        """Take the next message of the control channel."""
        last_id = event.id or 0
        if self._after is None or last_id != self._heard + 1:
            self._begin(last_id - 1)
        self._heard = last_id
        self._note(event)

    async def has_none(self, hold: Hold, mark: ControlMark) -> bool:
        """Say whether nothing took a channel from this user since `mark`; False in any doubt.

        What is said from now on is for whoever holds the stream to hear. Raises
        `StorageUnavailableError` if the log does not answer in time.
        """
        if not self._is_known(mark):
            try:
                await within(self._find_out(mark), WAIT_SECONDS)
            except TimeoutError as error:
                raise StorageUnavailableError(f"tickets are not honoured: {error}") from error
        return self._is_known(mark) and not self._concern(hold, mark)

    async def _find_out(self, mark: ControlMark) -> None:
        await self._read_with_others(mark)
        if not self._is_known(mark):
            # Those that were being read were of somebody who had been away for less long.
            await self._read_with_others(mark)

    async def _read_with_others(self, mark: ControlMark) -> None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._read_back(mark))
        await asyncio.shield(self._reading)

    def _is_known(self, mark: ControlMark) -> bool:
        control = self._control
        if not control.is_positioned or mark.epoch != self._epoch():
            return False
        if self._life != control.life:
            # The log went on from another place: what has the same ids may be something else.
            self._life = control.life
            self._forget(control.window.last_id)
        elif self._after is None or self._heard < control.window.last_id:
            self._begin(control.window.last_id)
        return self._after is not None and self._after <= mark.id <= self._heard

    def _concern(self, hold: Hold, mark: ControlMark) -> bool:
        names = (*hold.reliable, *hold.unreliable)
        return any(self._last.get((hold.user_id, name), 0) > mark.id for name in names)

    async def _read_back(self, mark: ControlMark) -> None:
        try:
            if not self._control.is_positioned:
                await self._ask([CONTROL_CHANNEL])
            if not self._is_known(mark) and self._is_within_reach(mark):
                await self._read_from(mark.id, self._after or 0)
        except HistoryGoneError as gone:
            self._floor = gone.oldest - 1
        except StorageUnavailableError:
            logger.warning("Tickets are not honoured: the event log cannot be reached")
        except Exception:
            # A client with a ticket is none the worse for it: Django is asked.
            logger.exception("Tickets are not honoured: what was revoked could not be read")

    def _is_within_reach(self, mark: ControlMark) -> bool:
        end = self._after
        if end is None or mark.epoch != self._epoch():
            return False
        return max(self._floor, end - MOST_READ) <= mark.id < end

    async def _read_from(self, after: int, end: int) -> None:
        found: list[Event] = []
        while after + len(found) < end:
            page = await self._log.read(CONTROL_CHANNEL, after + len(found), PAGE, PAGE_BYTES)
            if not page:
                return
            found += page
        if self._after == end:
            self._after = after
            for event in found:
                self._note(event)

    def _note(self, event: Event) -> None:
        change = parse_disconnect(event)
        if change is not None:
            self._add(change, event.id or 0)
        elif event.type == DISCONNECT:
            # It takes something away that this version cannot read: whoever was away then may not
            # come back without being asked.
            self._floor = event.id or 0
            self._after = max(self._after or 0, self._floor)

    def _add(self, change: Disconnect, last_id: int) -> None:
        if len(self._last) >= MOST_REMEMBERED:
            self._forget(self._heard)
        key = (change.user_id, change.channel)
        self._last[key] = max(last_id, self._last.get(key, 0))

    def _begin(self, last_id: int) -> None:
        self._last.clear()
        self._after = self._heard = last_id

    def _forget(self, last_id: int) -> None:
        self._begin(last_id)
        self._floor = last_id
