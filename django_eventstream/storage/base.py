"""The storage port: the log of events, as the rest of the package sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from django_eventstream.events import Event


@dataclass(frozen=True, slots=True)
class LogPosition:
    """Where the log stands."""

    ids: Mapping[str, int]
    """Last id of each channel that was asked for; 0 where none was ever sent."""

    epoch: int = 0
    """Which life of the log this is: another one after a restore from a backup."""

    unnumbered: frozenset[str] = frozenset()
    """Channels with committed events that whoever sent them left behind without a number."""

    log: str | None = ""
    """See `Storage.log_id()`; None while nobody knows."""


NUMBERED_EVENTS = 5_000
NUMBERED_BYTES = 4_000_000
"""Most events, and bytes of data as they are stored, that `Storage.number()` returns at once."""

WATCH = "watch"
"""The lease of the process that watches what moves."""

SWEEP = "sweep"
"""The lease of the process that removes old events."""


@dataclass(frozen=True, slots=True)
class WatchPosition:
    """How far the watch, or the sweep, has come that one process keeps for all."""

    looked_until: datetime | None = None
    """What moved up to then, by the log's clock, was dealt with; None if nobody ever looked."""

    control_id: int | None = None
    """The last message of the control channel that was dealt with; where the next sweep begins."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a process learns that asks for one of the leases."""

    is_held: bool
    """Whether it has the lease now, and is to go on from `position`."""

    seconds: float
    """How long somebody else has the lease still, unless it is renewed."""

    position: WatchPosition


@dataclass(frozen=True, slots=True)
class Change:
    """A channel that was sent to."""

    channel: str
    last_id: int

    at: datetime
    """When, by the log's clock."""


Limits = Callable[[str], tuple[datetime | None, int | None]]
"""Channel → `before` and `keep` of `Storage.trim()`."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one look at the events of all channels found."""

    removed: int = 0
    """How many events were removed."""

    position: int | None = None
    """Where the next look begins; None if this one has seen the newest events."""

    created: datetime | None = None
    """When the last event that was looked at was stored."""


class Storage(ABC):
    """A log of events. Within a channel ids are 1, 2, 3 … in the order of visibility.

    Every method blocks, may be called from any thread, and raises `StorageUnavailableError`
    when the log cannot be reached.
    """

    supports_outbox: bool = False
    """Whether `stage()` and `number()` work: events can join the caller's transaction."""

    supports_watch: bool = False
    """Whether the log keeps leases and knows what moves: the three methods for that work."""

    @property
    def feed(self) -> str | None:
        """Dotted path of the feed by which the backend itself tells of news; None without one."""
        return None

    def log_id(self) -> str:
        """Return what tells this log from all others that share a broker with it.

        It is the same in all processes that use the log, and for the calling thread where the
        storage depends on that. Empty where nobody can tell: then all are taken for one.
        """
        return ""

    @abstractmethod
    def append(self, events: Sequence[Event]) -> list[Event]:
        """Store the events and return them with their ids, all or none of them."""

    @abstractmethod
    def read(
        self, channel: str, after: int, limit: int, max_bytes: int | None = None
    ) -> list[Event]:
        """Return up to `limit` events with the ids after+1, after+2, …

        With `max_bytes` they end with the event whose data makes them that long, near enough:
        a page takes no more memory than this and one event, however large events are, and has
        one even if there is no room.

        Empty means that there are none yet. Raises `HistoryGoneError` when `after`+1 was
        stored once and is no longer kept.
        """

    @abstractmethod
    def get_position(self, channels: Iterable[str]) -> LogPosition:
        """Say where the log stands for these channels, in one question to the backend."""

    @abstractmethod
    def trim(self, channel: str, before: datetime | None, keep: int | None, limit: int) -> int:
        """Remove up to `limit` of the channel's oldest events, in one short step.

        Removes those created before `before`, and those beyond the last `keep`; returns how
        many. Ids are never used again.
        """

    def sweep(self, position: int, limit: int, limits: Limits) -> Sweep:
        """Look at `limit` events of all channels, the oldest after `position`, in a short step.

        Removes of them what `trim()` would remove of their channels with `limits(channel)`. A log
        that cannot look at all channels at once sees nothing: `trim()` alone keeps it small.
        """
        return Sweep()

    def begin_epoch(self) -> int:
        """Start a new life of the log, in which every cursor handed out before is void.

        Returns its number, which no life before had. Raises NotImplementedError where the log
        has but one life.
        """
        raise NotImplementedError

    def get_channels(self) -> list[str]:
        """List every channel that was ever sent to, by name. For commands: it may take a while.

        Raises NotImplementedError where nobody keeps count.
        """
        raise NotImplementedError

    def take_lease(self, holder: str, seconds: float, name: str = WATCH) -> Lease:
        """Take a lease for so many seconds, if no other process has it."""
        raise NotImplementedError

    def renew_lease(
        self, holder: str, seconds: float, position: WatchPosition, name: str = WATCH
    ) -> bool:
        """Keep a lease for so many seconds from now, and note how far its holder has come.

        With 0 seconds the next who asks takes it. Returns False if another has it already.
        """
        raise NotImplementedError

    def changed_since(
        self, position: WatchPosition, look_back: float, silence: float, limit: int
    ) -> tuple[Sequence[Change], WatchPosition]:
        """Return up to `limit` channels that moved behind the position, and where to go on.

        They moved at most `look_back` seconds ago, and not any more for `silence` seconds. One may
        be returned again: what becomes visible late must not be missed. The control channel is
        one of them.
        """
        raise NotImplementedError

    def now(self) -> datetime:
        """Return the time by the clock that tells when events were stored.

        It is that of this process, unless the backend has one for all.
        """
        return timezone.now()

    @property
    def alias(self) -> str | None:
        """Alias of the database that the log is in; None, and no outbox, where it is elsewhere."""
        return None

    def is_in_transaction(self) -> bool:
        """Say whether the caller has a transaction open that an event would become part of."""
        return False

    def stage(self, events: Sequence[Event]) -> None:
        """Write the events without ids, as part of the caller's transaction."""
        raise NotImplementedError

    def number(self, channel: str) -> list[Event]:
        """Give ids to committed events of the channel that have none, and return them.

        The oldest, up to `NUMBERED_EVENTS`, ending with the one that makes them `NUMBERED_BYTES`
        long. If they may be as many, or as long, there may be more.
        """
        raise NotImplementedError
