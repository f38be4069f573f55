"""Logs that keep the last five events of each channel, whatever is sent, from the first send on."""

from __future__ import annotations

from collections.abc import Sequence

from django_eventstream.events import Event
from django_eventstream.storage import DjangoModelStorage, MemoryStorage, RedisStorage
from django_eventstream.storage.base import Storage


class _LastFive(Storage):
    def append(self, events: Sequence[Event]) -> list[Event]:
        numbered = super().append(events)
        for channel in {event.channel for event in events}:
            while self.trim(channel, None, 5, 1_000):
                pass
        return numbered


class InDatabase(_LastFive, DjangoModelStorage):
    pass


class InMemory(_LastFive, MemoryStorage):
    pass


class InRedis(_LastFive, RedisStorage):
    pass
