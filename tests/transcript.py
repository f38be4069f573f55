"""What one client was sent, over all its connections, and what must be true of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.sse_parser import EventStreamParser, Message

CONTROL_TYPES = {"stream-open", "stream-reset", "stream-error", "keep-alive"}


@dataclass(frozen=True)
class Arrival:
    """A message, when it came (`time.monotonic()`), and on which connection, counted from 0."""

    message: Message
    at: float
    connection: int

    @property
    def type(self) -> str:
        return self.message.type

    @property
    def data(self) -> str:
        return self.message.data

    @property
    def last_event_id(self) -> str:
        return self.message.last_event_id

    def json(self) -> Any:
        return json.loads(self.data)


@dataclass
class Connection:
    """One attempt to connect: the answer's status (0 if there was none), and how it ended."""

    sent_last_event_id: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    """Only of an answer that is no event stream."""
    is_open: bool = False
    """Whether its first frame, `stream-open`, has come and it has not ended."""
    end: str = ""
    """Empty while it lasts; `complete`, `cut`, or the error."""

    @property
    def is_stream(self) -> bool:
        return self.status == 200 and self.headers.get("content-type", "").startswith(
            "text/event-stream"
        )


class Transcript:
    """The record. Written by one thread; reading it from another one is safe."""

    def __init__(self, last_event_id: str = "") -> None:
        self.arrivals: list[Arrival] = []
        self.connections: list[Connection] = []
        self.comments: list[str] = []
        self.last_event_id = last_event_id
        self.retry: int | None = None
        self._numbers: dict[str, list[int]] = {}
        self._parser = EventStreamParser(last_event_id)

    def connecting(self) -> Connection:
        self.connections.append(Connection(self.last_event_id))
        # A block that the last connection did not finish is lost, as in a browser.
        self._parser = EventStreamParser(self.last_event_id)
        self._parser.comments = self.comments
        return self.connections[-1]

    def receive(self, chunk: bytes) -> None:
        messages = self._parser.feed(chunk)
        now, connection = time.monotonic(), len(self.connections) - 1
        self.last_event_id = self._parser.last_event_id
        if self._parser.retry is not None:
            self.retry = self._parser.retry
        for message in messages:
            self._record(Arrival(message, now, connection))

    def _record(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        if arrival.type == "stream-open":
            self.connections[-1].is_open = True
        elif found := payload(arrival):
            self._numbers.setdefault(found["channel"], []).append(found["n"])

    def ended(self, how: str) -> None:
        """Notes how the current connection ended, unless that is known."""
        self.connections[-1].end = self.connections[-1].end or how
        self.connections[-1].is_open = False

    @property
    def events(self) -> list[Arrival]:
        """What applications sent: all but the stream's own control events."""
        return [arrival for arrival in list(self.arrivals) if arrival.type not in CONTROL_TYPES]

    def of_type(self, event_type: str) -> list[Arrival]:
        return [arrival for arrival in list(self.arrivals) if arrival.type == event_type]

    @property
    def is_open(self) -> bool:
        return bool(self.connections) and self.connections[-1].is_open

    def ids(self, channel: str) -> list[int]:
        """Where events moved the channel in the cursor, in the order of arrival."""
        return [number for number, _ in self.moves(channel)]

    def moves(self, channel: str) -> list[tuple[int, Arrival]]:
        moves, last = [], None
        for arrival in list(self.arrivals):
            position = positions(arrival.last_event_id).get(channel)
            if arrival.type not in CONTROL_TYPES and position not in (None, last):
                moves.append((position, arrival))
            last = position
        return moves

    def numbers(self, channel: str) -> list[int]:
        """The `n` of the events made by `numbered()` for this channel, in the order of arrival."""
        return list(self._numbers.get(channel, []))

    def has(self, channel: str, last: int) -> bool:
        """Whether number `last` of the channel has come: a condition to wait for."""
        return last in reversed(self._numbers.get(channel, []))


def numbered(channel: str, numbers: Iterable[int]) -> list[tuple[str, str, dict[str, Any]]]:
    """Events, as `send_events()` takes them, whose data tells their channel and number."""
    return [(channel, "message", {"channel": channel, "n": number}) for number in numbers]


def payload(arrival: Arrival) -> dict[str, Any] | None:
    try:
        found = arrival.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"channel", "n"} <= found.keys() else None


def positions(last_event_id: str) -> dict[str, int]:
    """A cursor, `quoted name:number` joined by commas. What is something else is left out."""
    parts = [part.rpartition(":") for part in last_event_id.split(",")]
    return {unquote(name): int(number) for name, _, number in parts if name and number.isdecimal()}


def assert_sequence(
    transcript: Transcript, channel: str, numbers: Iterable[int], *, ids: bool = True
) -> None:
    """Exactly these `numbered()` events of the channel came: none missing, doubled, out of order.

    With `ids`, each event also moved the channel in the cursor to the next id, one by one.
    """
    expected = list(numbers)
    assert_same(f"{channel}: numbers", transcript.numbers(channel), expected)
    if ids and expected:
        found = transcript.ids(channel)
        first = found[0] if found else 0
        assert_same(f"{channel}: ids", found, list(range(first, first + len(expected))))


def assert_same(what: str, found: list[int], expected: list[int]) -> None:
    if found == expected:
        return
    twice = sorted({number for number in found if found.count(number) > 1})
    raise AssertionError(
        f"{what}: {len(found)} came, {len(expected)} expected\n"
        f"missing: {sorted(set(expected) - set(found))[:20]}\n"
        f"twice: {twice[:20]}\n"
        f"unexpected: {sorted(set(found) - set(expected))[:20]}\n"
        f"out of order: {[b for a, b in zip(found, found[1:], strict=False) if b < a][:20]}"
    )


def condition(wanted: int | Callable[[Transcript], object]) -> Callable[[Transcript], object]:
    """`n` stands for "at least n events of applications have come"."""
    if isinstance(wanted, int):
        return lambda transcript: len(transcript.events) >= wanted
    return wanted
