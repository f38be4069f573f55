"""What Redis tells all processes when it has stored events: it knows their ids, we do not yet.

`<epoch> <last id before, of each channel>`, a line end, and JSON that was made beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from django_eventstream.events import Event, restore
from django_eventstream.publishers.messages import (
    MESSAGE_BYTES,
    News,
    log_in,
    size_of,
    this_process,
)


def announce(channels: Mapping[str, Sequence[Event]], log: str) -> str:
    """Write what follows the first line: the events, or of too much data how many there are."""
    size = sum(size_of(event) for group in channels.values() for event in group)
    whole = size <= MESSAGE_BYTES
    return json.dumps(
        {
            "sender": this_process().token,
            # For processes of before, during a deploy.
            "number": 0,
            "log": log,
            "channels": [
                [name, [_values(event) for event in group] if whole else len(group)]
                for name, group in channels.items()
            ],
        },
        separators=(",", ":"),
    )


def understand(text: str) -> News | None:
    """Read an announcement; None if it only says that a new epoch has begun.

    Raises KeyError, TypeError or ValueError if it is not one of ours.
    """
    first_line, _, rest = text.partition("\n")
    epoch, *last_ids = map(int, first_line.split())
    if not rest:
        return None
    message = json.loads(rest)
    log = log_in(message)
    events: list[Event] = []
    hints: list[tuple[str, int]] = []
    for (name, group), last_id in zip(message["channels"], last_ids, strict=True):
        if isinstance(group, int):
            hints.append((str(name), last_id + group))
            continue
        for number, (event_type, data, skipped) in enumerate(group, last_id + 1):
            events.append(restore(name, event_type, data, number, skipped, epoch, log))
    return News(str(message["sender"]), None, tuple(events), tuple(hints), log)


def _values(event: Event) -> list[object]:
    return [event.type, event.data, sorted(event.skip_user_ids)]
