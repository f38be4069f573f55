"""What processes tell each other of events: one message for many of them.

A message is of plain values that any serializer can take.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from django_eventstream.events import Event
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
    """The process that sent it."""

    number: int
    """Grows with each message of its sender: a layer may deliver one twice."""

    events: tuple[Event, ...]

    hints: tuple[tuple[str, int], ...]
    """Channels and the ids they have reached, of events too big to carry along."""


@dataclass(frozen=True, slots=True)
class Sender:
    """This process, as others know it."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    numbers: Iterator[int] = field(default_factory=count)


_sender: dict[str, Sender] = {}
after_fork(_sender.clear)


def this_process() -> Sender:
    """Return what this process signs its messages with; another one after a fork."""
    return _sender.get("this") or _sender.setdefault("this", Sender())


def pack(events: Sequence[Event]) -> Iterator[dict[str, Any]]:
    """Return the messages that carry these events, in their order."""
    for batch in _batches(events):
        whole = [event for event in batch if not _is_too_big(event)]
        hints = [event for event in batch if _is_too_big(event)]
        sender = this_process()
        yield {
            "type": MESSAGE_TYPE,
            "sender": sender.token,
            "number": next(sender.numbers),
            "events": [
                [
                    event.channel,
                    event.type,
                    event.data,
                    event.id,
                    sorted(event.skip_user_ids),
                    event.epoch,
                ]
                for event in whole
            ],
            "hints": [[event.channel, event.id] for event in hints],
        }


def count_events(message: Mapping[str, Any]) -> int:
    """Say how many events a message of `pack()` tells of."""
    return len(message["events"]) + len(message["hints"])


def unpack(message: Mapping[str, Any]) -> News:
    """Read a message. Raises KeyError, TypeError or ValueError if it is not one of ours."""
    return News(
        str(message["sender"]),
        int(message["number"]),
        tuple(
            Event(channel, event_type, data, event_id, frozenset(skip_user_ids), epoch)
            for channel, event_type, data, event_id, skip_user_ids, epoch in message["events"]
        ),
        tuple((channel, last_id) for channel, last_id in message["hints"]),
    )


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
