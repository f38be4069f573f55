"""Events: the values that travel, and the rules that every event keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

CONTROL_CHANNEL = "__eventstream__"
"""The log's own channel, by which processes tell each other of more than events.

It is followed by every hub like any other channel, so what is said there arrives
exactly once, in order, in every process, by whatever wake-up is configured.
"""

CONTROL_TYPES = frozenset({"stream-open", "stream-reset", "stream-error", "keep-alive"})
"""Types that the stream itself uses; an application cannot send them."""

_NOBODY: frozenset[str] = frozenset()

MAX_NAME_LENGTH = 255
"""Longest channel or type, in characters: the width of the columns."""


@dataclass(frozen=True, slots=True)
class Event:
    """One message on one channel.

    `send_events()` takes these. `data` is text and is sent as it is: encode it first.
    """

    channel: str
    """Where it is published: any text of 1 to 255 characters."""

    type: str
    """What `addEventListener()` listens for; `message` is the default of browsers."""

    data: str
    """The payload as text, most often JSON."""

    id: int | None = None
    """Its place in the channel's log: 1, 2, 3 …; None before it has one or where there is none."""

    skip_user_ids: frozenset[str] = _NOBODY
    """Users, by primary key as text, who do not get this event."""

    epoch: int | None = field(default=None, compare=False, repr=False)
    """Which life of the log its id belongs to, where the log can begin anew by itself."""

    log: str | None = field(default=None, compare=False, repr=False)
    """Which log it is of, while it is passed on; None where nobody knows."""

    def with_id(self, id: int, epoch: int | None = None) -> Event:  # noqa: A002
        """Return the same event at its place in the log."""
        return Event(self.channel, self.type, self.data, id, self.skip_user_ids, epoch)


def restore(
    channel: object,
    event_type: object,
    data: object,
    id: object,  # noqa: A002
    skip_user_ids: object,
    epoch: object = None,
    log: str | None = None,
) -> Event:
    """Return an event as some process stored it or passed it on.

    Raises TypeError or ValueError if no `send_event()` made it: in a stream it would break others.
    """
    if not (isinstance(channel, str) and isinstance(event_type, str) and isinstance(data, str)):
        raise TypeError("channel, type and data of an event are text")
    if not (id is None or isinstance(id, int)) or not (epoch is None or isinstance(epoch, int)):
        raise TypeError("id and epoch of an event are numbers")
    if "\n" in event_type or "\r" in event_type:
        raise ValueError("event_type contains a line end")
    if not data.isascii():
        _require_encodable("data", data)
    if not skip_user_ids:
        return Event(channel, event_type, data, id, _NOBODY, epoch, log)
    if not isinstance(skip_user_ids, list):
        raise TypeError("skip_user_ids is not a list of primary keys")
    # Somebody may have written numbers by hand: keys are compared as text.
    return Event(channel, event_type, data, id, frozenset(map(str, skip_user_ids)), epoch, log)


def validate_channel(channel: object) -> str:
    """Return `channel`, or raise TypeError or ValueError that says what is wrong with it."""
    name = _validate_text("channel", channel)
    if name == CONTROL_CHANNEL:
        raise ValueError(f"channel {name!r} is reserved")
    return name


def validate_type(event_type: object) -> str:
    """Return `event_type`, or raise TypeError or ValueError that says what is wrong with it.

    A line end would end the `event:` line early (WHATWG HTML §9.2.6), so it is refused. The
    empty type means `message`, as in the specification.
    """
    if event_type == "":
        return "message"
    name = _validate_text("event_type", event_type)
    if "\n" in name or "\r" in name:
        raise ValueError(f"event_type {name!r} contains a line end")
    if name in CONTROL_TYPES:
        raise ValueError(f"event_type {name!r} is reserved for the stream itself")
    return name


def validate_data(data: object) -> str:
    """Return `data`, or raise TypeError or ValueError that says why it cannot be sent."""
    if not isinstance(data, str):
        raise TypeError(f"data must be str once encoded, not {type(data).__name__}")
    _require_encodable("data", data)
    return data


def validate_user_ids(user_ids: object) -> frozenset[str]:
    """Return primary keys as text, from keys or users, or raise TypeError."""
    if user_ids == _NOBODY:
        return _NOBODY
    if isinstance(user_ids, str | bytes) or not isinstance(user_ids, Iterable):
        raise TypeError(
            "skip_user_ids must be an iterable of primary keys, such as [user.pk],"
            f" not {type(user_ids).__name__}"
        )
    return frozenset(str(getattr(user, "pk", user)) for user in user_ids)


def validate(event: Event) -> Event:
    """Return `event` fit for sending, or raise TypeError or ValueError."""
    if event.id is not None:
        raise ValueError("an event that is sent cannot bring its own id: the log gives it")
    return Event(
        validate_channel(event.channel),
        validate_type(event.type),
        validate_data(event.data),
        skip_user_ids=validate_user_ids(event.skip_user_ids),
    )


def _validate_text(argument: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be str, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{argument} must not be empty")
    if len(value) > MAX_NAME_LENGTH:
        raise ValueError(
            f"{argument} has {len(value)} characters; at most {MAX_NAME_LENGTH} are possible"
        )
    if "\x00" in value:
        raise ValueError(f"{argument} contains a NUL character")
    _require_encodable(argument, value)
    return value


def _require_encodable(argument: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{argument} contains a lone surrogate at {error.start}, which UTF-8 cannot carry"
        ) from error
