"""One held connection: whose it is, with whom it travels, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from django_eventstream import sse
from django_eventstream.exceptions import EventStreamError
from django_eventstream.hold import Hold
from django_eventstream.hub.convoy import Convoy
from django_eventstream.hub.turn import NextTurn


class Outlet(Protocol):
    """What carries the bytes of one connection to its client."""

    def send(self, chunk: bytes) -> bool:
        """Pass bytes on; False if they are not gone yet: then call `Connection.ready()` later.

        Nothing more is sent until then. It neither waits nor raises.
        """

    def end(self, error: Exception | None = None) -> None:
        """End the response; with an error, because of it."""


class Connection:
    """Belongs to one event loop."""

    __slots__ = (
        "_error",
        "_outlet",
        "_turn",
        "_word",
        "convoy",
        "hold",
        "is_busy",
        "is_ended",
        "joined_at",
        "send",
        "user_id",
    )

    def __init__(self, hold: Hold, outlet: Outlet, convoy: Convoy, turn: NextTurn) -> None:
        self.hold = hold
        self.user_id = hold.user_id
        self.convoy = convoy
        self.send: Callable[[bytes], bool] = outlet.send
        self.is_busy = False
        """Its client has not taken what was sent last."""
        self.is_ended = False
        """It travels with nobody any more, and goes when it has said farewell."""
        self.joined_at = time.monotonic()
        self._outlet = outlet
        self._turn = turn
        self._word = b""
        self._error: Exception | None = None
        convoy.take_over([self])

    # What the outlet says

    def ready(self) -> None:
        """The client has taken what was sent, and can take more."""
        self.is_busy = False
        if self.is_ended:
            self.serve()
        else:
            self.convoy.ready()

    # What the hub says

    def start(self, current_ids: Mapping[str, int], epoch: int) -> None:
        """Begin, now that it is known where the log stands."""
        self.convoy.start(self.hold.cursor, current_ids, epoch, self.hold.stamp)
        self.hold = self.hold.begun()

    def keep_alive(self) -> None:
        """Send a sign of life, unless there is something else to send now."""
        convoy = self.convoy
        is_idle = convoy.is_started and (convoy.is_waiting or not convoy.has_more())
        if is_idle and not (self.is_ended or self.is_busy):
            self._say(sse.KEEP_ALIVE)

    def fail(self, error: EventStreamError) -> None:
        """End for good with a `stream-error`."""
        self._end(sse.encode_error(error.condition, str(error), error.channels))

    def drain(self, retry: int) -> None:
        """End at an event boundary; the client comes back after `retry` milliseconds."""
        self._end(sse.encode_retry(retry) + self.convoy.take_ticket(self.hold.stamp))

    def send_away(self, retry: int) -> None:
        """End as by `drain()`, but without a ticket: the client must be asked for again."""
        self._end(sse.encode_retry(retry))

    def break_off(self, error: Exception) -> None:
        """End because of a fault; the server closes the connection as it sees fit."""
        self._error = error
        self._end(b"")

    def leave(self) -> None:
        """The client has gone."""
        self.is_ended = True
        self._word = b""
        # Others may be in the middle of sending to all who travelled with it.
        self.send = _to_nobody
        self.convoy.leave(self)

    # What is for this client alone

    def serve(self) -> None:
        """Send it, if the client can take more."""
        if self.is_busy:
            return
        word, self._word = self._word, b""
        if word:
            self.is_busy = not self._outlet.send(word)
        if self.is_ended and not self.is_busy:
            self._outlet.end(self._error)

    def _end(self, farewell: bytes) -> None:
        if not self.is_ended:
            self.leave()
            self._say(farewell)

    def _say(self, word: bytes) -> None:
        self._word = word
        self._turn.note(self)


def _to_nobody(chunk: bytes) -> bool:
    return True
