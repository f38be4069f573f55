"""Messages of other processes, as a hub wants them: none of its own, none twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from django_eventstream.feeds.base import Listener
from django_eventstream.publishers.messages import News, this_process, unpack

SENDERS_REMEMBERED = 1_000


class Hearing:
    """Passes on what messages say; belongs to one feed."""

    def __init__(self) -> None:
        self._last_numbers: OrderedDict[str, int] = OrderedDict()

    def hear(self, message: Mapping[str, Any], listener: Listener) -> None:
        """Pass a message on, as it came from a broker."""
        try:
            news = unpack(message)
        except (KeyError, TypeError, ValueError):
            # Of another version of this package, during a deploy.
            listener.look()
        else:
            self.tell(news, listener)

    def tell(self, news: News, listener: Listener) -> None:
        """Pass on what a message says."""
        if news.sender == this_process().token:
            return
        is_new = self._is_new(news.sender, news.number)
        # Ids tell whether a stored event is new.
        listener.offer(event for event in news.events if is_new or event.id is not None)
        for name, last_id in news.hints:
            listener.hint(name, last_id)

    def _is_new(self, sender: str, number: int) -> bool:
        last = self._last_numbers.pop(sender, -1)
        self._last_numbers[sender] = max(last, number)
        if len(self._last_numbers) > SENDERS_REMEMBERED:
            self._last_numbers.popitem(last=False)
        return number > last
