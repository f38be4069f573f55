"""What feeds have in common that depend on a server which may go away and come back."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable

from django_eventstream.deadlines import growing_pause
from django_eventstream.feeds.base import Feed, Listener

logger = logging.getLogger(__name__)


class BrokerFeed(Feed):
    """Connects again and again, with growing pauses; says once that the server is gone."""

    name: str
    """What to call the server in the project's logs."""

    @abstractmethod
    async def listen(self, listener: Listener, connected: Callable[[], None]) -> None:
        """Connect, call `connected()`, and pass news on until the connection fails."""

    async def follow(self, listener: Listener) -> None:
        """See `Feed.follow()`."""
        failures = 0

        def connected() -> None:
            nonlocal failures
            if failures:
                logger.info("%s tells of events again", self.name)
            failures = 0
            listener.look()

        while True:
            try:
                await self.listen(listener, connected)
            except Exception as error:  # whatever the client of a broker raises
                if not failures:
                    text = str(error) or type(error).__name__
                    logger.warning("%s does not tell of events now: %s", self.name, text)
            await asyncio.sleep(growing_pause(failures))
            failures += 1
