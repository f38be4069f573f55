"""Messages of other processes, as a hub wants them: none of its own, none twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from django_eventstream.feeds.base import Listener
from django_eventstream.publishers.messages import News, is_own, unpack

SENDERS_REMEMBERED = 1_000

NUMBERS_REMEMBERED = 1_024
"""Of each sender. A layer may deliver twice, and need not keep the order: a message that comes
later than those sent after it is no repeat."""


class Hearing:
    """Passes on what messages say; belongs to one feed."""

    def __init__(self) -> None:
        self._heard: OrderedDict[str, _Numbers] = OrderedDict()

    def hear(self, message: Mapping[str, Any], listener: Listener) -> None:
        """Pass a message on, as it came from a broker."""
        try:
            news = unpack(message)
        except (AttributeError, KeyError, TypeError, ValueError):
            # Of another version of this package, during a deploy.
            listener.look()
        else:
            self.tell(news, listener)

    def tell(self, news: News, listener: Listener) -> None:
        """Pass on what a message says."""
        if is_own(news.sender):
            return
        # Ids tell whether a stored event is new.
        is_new = news.number is None or self._is_new(news.sender, news.number)
        listener.offer(event for event in news.events if is_new or event.id is not None)
        for name, last_id in news.hints:
            listener.hint(name, last_id, news.log)

    def _is_new(self, sender: str, number: int) -> bool:
        heard = self._heard.pop(sender, None) or _Numbers()
        self._heard[sender] = heard
        if len(self._heard) > SENDERS_REMEMBERED:
            self._heard.popitem(last=False)
        return heard.add(number)


class _Numbers:
    """The last numbers of one sender, a bit for each: the lowest one is for the highest number."""

    def __init__(self) -> None:
        self._highest = -1
        self._bits = 0

    def add(self, number: int) -> bool:
        """Say whether the number is new. One that is too old to be remembered is not."""
        if number > self._highest:
            moved = min(number - self._highest, NUMBERS_REMEMBERED)
            self._bits = (self._bits << moved | 1) & ((1 << NUMBERS_REMEMBERED) - 1)
            self._highest = number
            return True
        age = self._highest - number
        is_new = age < NUMBERS_REMEMBERED and not self._bits >> age & 1
        if is_new:
            self._bits |= 1 << age
        return is_new
