"""The channel layer as this package uses it: one group, and what is said in it.

One message carries many events, as plain values that any serializer of a layer can take.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from channels.layers import InMemoryChannelLayer, channel_layers, get_channel_layer

from django_eventstream.events import Event

GROUP = "django_eventstream"
"""Every process that holds streams is in it once, however many streams it holds."""

MESSAGE_TYPE = "eventstream.events"

MESSAGE_BYTES = 256 * 1024
"""Most data in one message: layers keep messages in memory, a hundred for each process."""

BLOCKING_SECONDS = 2
"""How long one question to Redis waits for an answer."""

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


_senders: dict[int, Sender] = {}


def this_process() -> Sender:
    """Return what this process signs its messages with; another one after a fork."""
    pid = os.getpid()
    return _senders.get(pid) or _senders.setdefault(pid, Sender())


def is_in_memory(alias: str) -> bool:
    """Say whether the layer ends with this process, whose hubs hear of everything anyway."""
    return isinstance(get_channel_layer(alias), InMemoryChannelLayer)


def make_layer(alias: str) -> Any:
    """Return a new channel layer, made from the settings, for one event loop.

    The project's own is shared by its event loops, and by the processes that fork after it was
    made: channels_redis lets only one loop receive through it, and processes that share one
    take each other's messages.
    """
    layer = channel_layers.make_backend(alias)
    if hasattr(type(layer), "brpop_timeout"):
        # channels_redis lets Redis wait for five seconds, and redis-py 8 gives up after five:
        # https://github.com/django/channels_redis/issues/422
        layer.brpop_timeout = BLOCKING_SECONDS
    return layer


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
                [event.channel, event.type, event.data, event.id, sorted(event.skip_user_ids)]
                for event in whole
            ],
            "hints": [[event.channel, event.id] for event in hints],
        }


def unpack(message: Mapping[str, Any]) -> News:
    """Read a message. Raises KeyError, TypeError or ValueError if it is not one of ours."""
    return News(
        str(message["sender"]),
        int(message["number"]),
        tuple(
            Event(channel, event_type, data, event_id, frozenset(skip_user_ids))
            for channel, event_type, data, event_id, skip_user_ids in message["events"]
        ),
        tuple((channel, last_id) for channel, last_id in message["hints"]),
    )


def _batches(events: Sequence[Event]) -> Iterator[list[Event]]:
    batch: list[Event] = []
    room = MESSAGE_BYTES
    for event in events:
        size = EVENT_OVERHEAD if _is_too_big(event) else _size(event)
        if batch and size > room:
            yield batch
            batch, room = [], MESSAGE_BYTES
        batch.append(event)
        room -= size
    if batch:
        yield batch


def _is_too_big(event: Event) -> bool:
    # An event without an id is nowhere else, so it travels whatever its size.
    return event.id is not None and _size(event) > MESSAGE_BYTES


def _size(event: Event) -> int:
    return len(event.data.encode()) + EVENT_OVERHEAD
