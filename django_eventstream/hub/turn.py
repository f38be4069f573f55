"""Who has something to send: all that comes close together is sent together, once a turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Protocol, TypeVar

logger = logging.getLogger(__name__)


class Breakable(Protocol):
    """Whatever ends when sending to it fails."""

    def break_off(self, error: Exception) -> None:
        """End, because of a fault in sending."""


B = TypeVar("B", bound=Breakable)


class Sender(Breakable, Protocol):
    """Somebody who may have something to send."""

    def serve(self) -> None:
        """Send it."""


def do_for_each(items: Iterable[B], action: Callable[[B], None]) -> None:
    """Call `action(item)` for all of them; one for which it fails ends, and holds up no other."""
    for item in list(items):
        try:
            action(item)
        except Exception as error:
            break_off(item, error)


def break_off(broken: Breakable, error: Exception) -> None:
    """End one because of a fault, so that those that come after it are not silenced.

    Even where the fault makes ending it fail as well.
    """
    try:
        broken.break_off(error)
    except Exception:
        logger.exception("A stream failed, and could not be ended")


class NextTurn:
    """Those who are served in the event loop's next turn, outside of any task."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._noted: list[Sender] = []
        # Not that of whoever notes somebody first, who may be another client.
        self._context = Context()

    def note(self, sender: Sender) -> None:
        """Serve this one."""
        if not self._noted:
            self._loop.call_soon(self._serve, context=self._context)
        self._noted.append(sender)

    def _serve(self) -> None:
        noted, self._noted = self._noted, []
        for sender in noted:
            try:  # no call more for each than it needs
                sender.serve()
            except Exception as error:
                break_off(sender, error)
