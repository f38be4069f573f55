"""The log in Redis, on its streams."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from itertools import count
from typing import Any, TypeVar

from django_eventstream.backends import REDIS_FEED, get_retention
from django_eventstream.conf import PREFIX
from django_eventstream.events import Event, restore
from django_eventstream.exceptions import HistoryGoneError, StorageUnavailableError
from django_eventstream.processes import after_fork
from django_eventstream.publishers.messages import this_process
from django_eventstream.redis_server import (
    CONNECTION_ERRORS,
    REDIS_ERRORS,
    RedisServer,
    may_be_done,
)
from django_eventstream.storage.announcements import announce
from django_eventstream.storage.base import LogPosition
from django_eventstream.storage.legacy import LegacyMethods
from django_eventstream.storage.redis_runs import ReadyServer
from django_eventstream.storage.redis_scripts import Script
from django_eventstream.storage.rows import readable

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

FIRST_PAUSE_SECONDS = 0.05
"""Between two tries, while a Redis starts again; each is twice as long as the one before."""

ANY_SIZE = 10**15
ANY_ID = 2**53 - 1
"""The largest that Lua counts to."""


class Slot:
    """One caller at a time: Redis remembers its last append, so that it can be asked again."""

    def __init__(self) -> None:
        self.name = f"{this_process().token}-{next(_slot_numbers)}"
        self.calls = count(1)


_slot_numbers = count()


class RedisStorage(LegacyMethods):
    """Events on Redis Streams; Redis 6.2 or newer, or what is compatible, as a single server.

    An append is one round trip, a page of replay and a question for positions as well. What
    Redis acknowledged is as safe as its own settings make it (`appendonly`, `appendfsync`). When
    it comes back empty, or with less than it acknowledged, a new epoch begins by itself.

    Events do not belong to the caller's transaction: they are appended once it is committed, and
    lost if the process dies in that moment.
    """

    def __init__(self, server: RedisServer | None = None) -> None:
        self._given_server = server
        self._begin()
        after_fork(self._begin)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._ready: ReadyServer | None = None
        self._slots: deque[Slot] = deque()
        self._failing_since: float | None = None
        self._trouble = ""
        self.is_announcing = True
        """Whether Redis announced what was appended last; else somebody has to tell of it."""

    @property
    def server(self) -> RedisServer:
        """The Redis of `EVENTSTREAM_STORAGE_CONNECTION`, or of `EVENTSTREAM_REDIS`."""
        return self._ready_to_ask().server

    @property
    def feed(self) -> str | None:
        """See `Storage.feed`. Appending announces in the same step."""
        return REDIS_FEED

    def log_id(self) -> str:
        """See `Storage.log_id()`. Processes speak through the server that has the log."""
        return self._ready_to_ask().log_id

    def append(self, events: Sequence[Event]) -> list[Event]:
        """See `Storage.append()`. One round trip for any number of events and channels.

        While Redis is starting again it waits for it, up to the timeout; then, and as long as
        Redis stays away, it raises at once. The error says whether the events may be stored,
        because the connection broke in the middle.
        """
        channels: dict[str, list[Event]] = {}
        for event in events:
            channels.setdefault(event.channel, []).append(event)
        ready = self._ready_to_ask()
        arguments: list[Any] = [ready.server.news_channel, announce(channels, ready.log_id)]
        for channel, group in channels.items():
            arguments += [channel, *_limits(channel), len(group), *map(_to_text, group)]
        streams = [ready.stream(channel) for channel in channels]
        with self._slot() as slot:
            keys = [ready.key(f"slot:{slot.name}"), *streams]
            arguments = [next(slot.calls), *arguments]
            said = self._try(partial(ready.run, ready.scripts.append, keys, arguments), stores=True)
        ids, untold, trouble = said.split("\n")
        self._note(untold, trouble)
        epoch, *last_ids = map(int, ids.split())
        return _numbered(events, dict(zip(channels, last_ids, strict=True)), epoch)

    def read(
        self, channel: str, after: int, limit: int, max_bytes: int | None = None
    ) -> list[Event]:
        """See `Storage.read()`. One round trip; what 5.3.4 stored here is read as well."""
        after = min(max(after, 0), ANY_ID)
        ready = self._ready_to_ask()
        room = ANY_SIZE if max_bytes is None else max_bytes
        arguments = [channel, after, min(limit, ANY_ID), room]
        epoch, oldest, *found = self._run(ready.scripts.read, [ready.stream(channel)], arguments)
        if int(oldest):
            raise HistoryGoneError(channel, oldest=int(oldest))
        life = int(epoch)
        numbered = ((n, (n, text)) for n, text in enumerate(found, after + 1))
        events = readable(
            channel, numbered, lambda entry: _to_event(channel, entry[0], entry[1], life)
        )
        if found and (not events or events[0].id != after + 1):
            first = events[0].id if events else None
            raise HistoryGoneError(channel, oldest=first or after + len(found) + 1)
        # What is before one that nobody can read is good.
        return [event for number, event in enumerate(events, after + 1) if event.id == number]

    def get_position(self, channels: Iterable[str]) -> LogPosition:
        """See `Storage.get_position()`. One round trip."""
        names = list(dict.fromkeys(channels))
        epoch, *last = self._run(self._ready_to_ask().scripts.position, [], names)
        ids = {name: _id_of(found) for name, found in zip(names, last, strict=True)}
        return LogPosition(ids, int(epoch))

    def trim(self, channel: str, before: datetime | None, keep: int | None, limit: int) -> int:
        """See `Storage.trim()`.

        Appending does it as well, and Redis by itself for a channel that has fallen silent.
        """
        ready = self._ready_to_ask()
        oldest = "" if before is None else int(before.timestamp() * 1000)
        arguments = [channel, oldest, "" if keep is None else keep, limit]
        return int(self._run(ready.scripts.trim, [ready.stream(channel)], arguments))

    def now(self) -> datetime:
        """See `Storage.now()`. One round trip: the clock is the server's."""
        seconds, microseconds = self._try(self._ready_to_ask().client.time)
        return datetime.fromtimestamp(seconds + microseconds / 1_000_000, tz=timezone.utc)

    def begin_epoch(self) -> int:
        """See `Storage.begin_epoch()`."""
        ready = self._ready_to_ask()
        return int(self._run(ready.scripts.begin_epoch, [], [ready.server.news_channel]))

    def get_channels(self) -> list[str]:
        """See `Storage.get_channels()`."""
        ready = self._ready_to_ask()
        names = self._try(lambda: [name for name, _ in ready.client.hscan_iter(ready.key("ids"))])
        return sorted(set(names) - {""})

    def _ready_to_ask(self) -> ReadyServer:
        if self._ready is None:
            with self._lock:
                if self._ready is None:
                    self._ready = ReadyServer(
                        self._given_server
                        or RedisServer.from_settings("STORAGE_CONNECTION", "REDIS")
                    )
        return self._ready

    @contextmanager
    def _slot(self) -> Iterator[Slot]:
        token = this_process().token
        try:
            slot = self._slots.pop()
        except IndexError:
            slot = Slot()
        if not slot.name.startswith(token):
            # It is the parent's: this process forked.
            slot = Slot()
        yield slot
        # Not after a failure: Redis may still get to see what was sent.
        self._slots.append(slot)

    def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        ready = self._ready_to_ask()
        return self._try(partial(ready.run, script, keys, arguments))

    def _try(self, ask: Callable[[], Result], *, stores: bool = False) -> Result:
        """Ask, again if Redis seems to be starting; what is asked twice is done once."""
        pause = FIRST_PAUSE_SECONDS
        is_unsure = False
        while True:
            try:
                answer = ask()
            except CONNECTION_ERRORS as error:
                is_unsure = is_unsure or (stores and may_be_done(error))
                now = time.monotonic()
                since = self._failing_since = self._failing_since or now
                if now + pause > since + self.server.timeout:
                    raise self._unavailable(error, is_unsure) from error
                time.sleep(pause)
                pause *= 2
            except REDIS_ERRORS as error:
                is_unsure = is_unsure or (stores and may_be_done(error))
                raise self._unavailable(error, is_unsure) from error
            else:
                self._failing_since = None
                return answer

    def _unavailable(self, error: Exception, is_unsure: bool) -> StorageUnavailableError:
        setting = PREFIX + self.server.setting
        text = f"the event log in Redis ({setting}) failed: {error}"
        if is_unsure:
            text += " (the answer was lost: the events may be stored)"
        return StorageUnavailableError(text, may_be_stored=is_unsure)

    def _note(self, untold: str, trouble: str) -> None:
        """Write once into the log of the project what failed after events were stored."""
        if untold and self.is_announcing:
            logger.warning("Redis stores events and does not announce them: %s", untold)
        self.is_announcing = not untold
        if trouble and not self._trouble:
            logger.warning("Redis stores events and does not look after the log: %s", trouble)
        self._trouble = trouble


def _limits(channel: str) -> tuple[int | str, int | str]:
    """How many milliseconds, and how many events, of a channel to keep; empty for any."""
    try:
        kept = get_retention(channel)
    except Exception:
        # The project's own channel manager is asked; what it does not say is no reason to fail.
        logger.warning(
            "All events of %r are kept: get_retention() of the channel manager failed",
            channel,
            exc_info=True,
        )
        return "", ""
    milliseconds = "" if kept.seconds is None else max(1, int(kept.seconds * 1000))
    return milliseconds, "" if kept.count is None else kept.count


def _to_text(event: Event) -> str:
    # A type has no line end, and JSON has none either.
    skipped = json.dumps(sorted(event.skip_user_ids)) if event.skip_user_ids else ""
    return f"{event.type}\n{skipped}\n{event.data}"


def _to_event(channel: str, number: int, text: str, epoch: int) -> Event:
    event_type, skipped, data = text.split("\n", 2)
    users = json.loads(skipped) if skipped else None
    return restore(channel, event_type, data, number, users, epoch)


def _id_of(stream_id: object) -> int:
    return int(str(stream_id).partition("-")[0]) if stream_id else 0


def _numbered(events: Sequence[Event], last_ids: dict[str, int], epoch: int) -> list[Event]:
    numbered = []
    for event in events:
        last_ids[event.channel] += 1
        numbered.append(event.with_id(last_ids[event.channel], epoch))
    return numbered
