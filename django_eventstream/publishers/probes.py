"""Which channels to probe, and when: those that fell silent after a publish."""

from __future__ import annotations

import heapq

SILENCE_SECONDS = 2.0
"""After this time without a publish, nobody else will find the gap that a lost one left."""

INTERVAL_SECONDS = 61.0
"""Between two probes of a channel: proxies drop an id that they saw within a minute."""

CHANNELS_REMEMBERED = 20_000


class Probes:
    """Knows the last id of channels lately published to. Not thread-safe."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._due_at: dict[str, float] = {}
        self._probed_at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def note(self, channel: str, last_id: int, now: float) -> None:
        """A channel reached this id."""
        known = channel in self._ids
        if not known and len(self._ids) >= CHANNELS_REMEMBERED:
            return
        self._ids[channel] = max(last_id, self._ids.get(channel, 0))
        earliest = self._probed_at.get(channel, -INTERVAL_SECONDS) + INTERVAL_SECONDS
        self._due_at[channel] = max(now + SILENCE_SECONDS, earliest)
        if not known:
            heapq.heappush(self._heap, (self._due_at[channel], channel))

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
            self._remember(channel, now)
        return due

    def _remember(self, channel: str, now: float) -> None:
        self._probed_at.pop(channel, None)
        self._probed_at[channel] = now
        while self._probed_at:
            oldest = next(iter(self._probed_at))
            if self._probed_at[oldest] > now - INTERVAL_SECONDS:
                return
            del self._probed_at[oldest]
