"""Which channels to probe, and when: those that fell silent after a publish."""

from __future__ import annotations

import heapq

SILENCE_SECONDS = 2.0
"""After this time without a publish, nobody else will find the gap that a lost one left."""

REMEMBERED_SECONDS = 61.0
"""Proxies drop an id that they saw within a minute, so none is probed twice in that time."""

CHANNELS_REMEMBERED = 20_000


class Probes:
    """Knows the last id of channels lately published to. Not thread-safe."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._due_at: dict[str, float] = {}
        self._probed: dict[str, tuple[int, float]] = {}
        """Channel → the last id that was probed, and when; the oldest first."""
        self._heap: list[tuple[float, str]] = []

    def note(self, channel: str, last_id: int, now: float) -> None:
        """A channel reached this id."""
        probed_id, probed_at = self._probed.get(channel, (0, 0.0))
        if last_id <= probed_id and now < probed_at + REMEMBERED_SECONDS:
            return
        known = channel in self._ids
        if not known and len(self._ids) >= CHANNELS_REMEMBERED:
            return
        self._ids[channel] = max(last_id, self._ids.get(channel, 0))
        self._due_at[channel] = now + SILENCE_SECONDS
        if not known:
            heapq.heappush(self._heap, (self._due_at[channel], channel))

    def failed(self, channel: str, last_id: int, now: float) -> None:
        """A probe did not reach the proxy: it is due again."""
        self._probed.pop(channel, None)
        self.note(channel, last_id, now)

    def seconds_until_due(self, now: float) -> float | None:
        """Say how long nothing is due; None if nothing will be."""
        return max(0.0, self._heap[0][0] - now) if self._heap else None

    def take_due(self, now: float, limit: int) -> list[tuple[str, int]]:
        """Return channels to probe now with their ids, and forget them until they are noted."""
        due: list[tuple[str, int]] = []
        while self._heap and self._heap[0][0] <= now and len(due) < limit:
            _, channel = heapq.heappop(self._heap)
            if self._due_at[channel] > now:
                # It was published to meanwhile.
                heapq.heappush(self._heap, (self._due_at[channel], channel))
                continue
            due.append((channel, self._ids.pop(channel)))
            del self._due_at[channel]
            self._remember(*due[-1], now)
        return due

    def _remember(self, channel: str, last_id: int, now: float) -> None:
        self._probed.pop(channel, None)
        self._probed[channel] = (last_id, now)
        while self._probed:
            oldest = next(iter(self._probed))
            is_recent = self._probed[oldest][1] > now - REMEMBERED_SECONDS
            if is_recent and len(self._probed) <= CHANNELS_REMEMBERED:
                return
            del self._probed[oldest]
