"""What processes tell each other of events: one message for many of them.

A message is of plain values that any serializer can take.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from operator import attrgetter
from typing import Any

from django_eventstream.events import Event, restore
from django_eventstream.processes import after_fork

MESSAGE_TYPE = "eventstream.events"

MESSAGE_BYTES = 256 * 1024
"""Most data in one message: brokers keep messages in memory, a hundred for each process."""

EVENT_OVERHEAD = 128
"""What an event takes besides its data, near enough."""


@dataclass(frozen=True, slots=True)
class News:
    """What one message says."""

    sender: str
    """Who sent it: a process, and which of its streams of messages."""

    number: int | None
    """Grows with each message of its sender, since a layer may deliver one twice; None where all
    events have ids, which tell."""

    events: tuple[Event, ...]

    hints: tuple[tuple[str, int], ...]
    """Channels and the ids they have reached, of events too big to carry along."""

    log: str | None = None
    """The log of the events; None in a message of before."""


@dataclass(frozen=True, slots=True)
class Process:
    """This process, as others know it."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    streams: Iterator[int] = field(default_factory=count)


_process: dict[str, Process] = {}
after_fork(_process.clear)


def this_process() -> Process:
    """Return what this process signs its messages with; another one after a fork."""
    return _process.get("this") or _process.setdefault("this", Process())


def is_own(sender: str) -> bool:
    """Say whether a message was sent by this process."""
    return sender.partition("-")[0] == this_process().token


class Packer:
    """Writes the messages of one stream: they are sent in the order in which they are numbered.

    Each sender has its own, and calls it in the thread that sends. One counter for several would
    number a message before another one that overtakes it, and receivers took it for a repeat.
    """

    def __init__(self) -> None:
        process = this_process()
        self._sender = f"{process.token}-{next(process.streams)}"
        self._numbers = count()

    def pack(self, events: Sequence[Event]) -> Iterator[dict[str, Any]]:
        """Return the messages that carry these events, in their order."""
        for log, batch in _batches_of_logs(events):
            whole = [event for event in batch if not _is_too_big(event)]
            hints = [event for event in batch if _is_too_big(event)]
            yield {
                "type": MESSAGE_TYPE,
                "sender": self._sender,
                "number": next(self._numbers),
                "log": log,
                "events": [_values(event) for event in whole],
                "hints": [[event.channel, event.id] for event in hints],
            }


def count_events(message: Mapping[str, Any]) -> int:
    """Say how many events a message of `pack()` tells of."""
    return len(message["events"]) + len(message["hints"])


def unpack(message: Mapping[str, Any]) -> News:
    """Read a message. Raises KeyError, TypeError or ValueError if it is not one of ours."""
    log = log_in(message)
    return News(
        str(message["sender"]),
        int(message["number"]),
        tuple(
            restore(channel, event_type, data, event_id, skip_user_ids, epoch, log)
            for channel, event_type, data, event_id, skip_user_ids, epoch in message["events"]
        ),
        tuple((str(channel), int(last_id)) for channel, last_id in message["hints"]),
        log,
    )


def log_in(message: Mapping[str, Any]) -> str | None:
    """Return which log a message is of; None if it does not say."""
    log = message.get("log")
    return None if log is None else str(log)


def _values(event: Event) -> list[object]:
    skipped = sorted(event.skip_user_ids)
    return [event.channel, event.type, event.data, event.id, skipped, event.epoch]


def _batches_of_logs(events: Sequence[Event]) -> Iterator[tuple[str | None, list[Event]]]:
    for log, group in groupby(events, attrgetter("log")):
        for batch in _batches(list(group)):
            yield log, batch


def _batches(events: Sequence[Event]) -> Iterator[list[Event]]:
    batch: list[Event] = []
    room = MESSAGE_BYTES
    for event in events:
        size = EVENT_OVERHEAD if _is_too_big(event) else size_of(event)
        if batch and size > room:
            yield batch
            batch, room = [], MESSAGE_BYTES
        batch.append(event)
        room -= size
    if batch:
        yield batch


def _is_too_big(event: Event) -> bool:
    # An event without an id is nowhere else, so it travels whatever its size.
    return event.id is not None and size_of(event) > MESSAGE_BYTES


def size_of(event: Event) -> int:
    """Say how many bytes the event takes in a message, near enough."""
    return len(event.data.encode()) + EVENT_OVERHEAD
