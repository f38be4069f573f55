"""The errors of this package.

EventStreamError
├── BadRequestError            what the client asked for cannot be understood
├── EventPermissionError       the client may not read a channel that it asked for
├── SessionEndedError          the client comes back after an error that ended its stream for good
├── StorageUnavailableError    the log cannot be read or written now; trying again later makes sense
├── HistoryGoneError           events after a position are no longer kept
├── PublishError               an event is stored, but a proxy or a broker did not take the hint
├── IncompatibleSettings       a setting that a backend needs is missing, or of no use
└── RedisPackageIsNotAvailable  the settings name a Redis, and the package redis is not installed
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar


class EventStreamError(Exception):
    """Base of every error that this package raises on purpose."""

    condition: ClassVar[str] = "internal-error"
    """The `condition` of the `stream-error` event that tells a client of this error."""

    status: ClassVar[int] = 500
    """The HTTP status where the answer is not an event stream."""

    channels: Sequence[str] = ()
    """The channels at fault, where there are some."""


class BadRequestError(EventStreamError):
    """The client asked for something that cannot be understood; its message is shown to it."""

    condition = "bad-request"
    status = 400


class EventPermissionError(EventStreamError):
    """The client may not read the channels in `channels`."""

    condition = "forbidden"
    status = 403

    def __init__(self, message: str, channels: Iterable[str] | None = None) -> None:
        super().__init__(message)
        self.channels = list(channels or ())

    @classmethod
    def for_channels(cls, channels: Iterable[str]) -> EventPermissionError:
        """Make the error that names these channels, in words that front ends look for."""
        names = sorted(channels)
        return cls(f"Permission denied to channels: {', '.join(names)}", names)


class SessionEndedError(EventStreamError):
    """The client's cursor is the one of a `stream-error`: it must not come back."""

    condition = "bad-request"
    status = 400


class StorageUnavailableError(EventStreamError):
    """The log cannot be reached now: the database is locked, down, or not migrated."""

    status = 503

    def __init__(self, message: str, *, may_be_stored: bool = False) -> None:
        super().__init__(message)
        self.may_be_stored = may_be_stored
        """Whether what was being written may be in the log: only the answer was lost."""


class HistoryGoneError(EventStreamError):
    """Events of `channel` after the position asked for are no longer kept."""

    def __init__(self, channel: str, oldest: int) -> None:
        super().__init__(f"channel {channel!r} keeps no events before {oldest}")
        self.channel = channel
        self.oldest = oldest
        """Lowest id still kept; the next one to come where nothing is kept."""


class PublishError(EventStreamError):
    """A proxy or broker did not take the hint; the events themselves are in the log."""


class IncompatibleSettings(EventStreamError):
    """A setting that a backend needs is missing, or of no use; the message names it."""


class RedisPackageIsNotAvailable(EventStreamError):
    """The settings name a Redis, and the package `redis` is not installed."""
