"""A crowd whose permissions are asked for again: several at once, and not all for one user.

The threads of the channel managers meet, or wait for the test: how long they take plays no part.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections import Counter
from dataclasses import replace

import pytest

from django_eventstream.hub import admission, authorizations
from django_eventstream.hub.authorizations import AT_ONCE, AT_ONCE_FOR_ONE
from django_eventstream.hub.hub import Hub
from tests.unit.test_hub import OPTIONS, Client, MemoryLog

ENOUGH = 30


@pytest.fixture(autouse=True)
def nobody_loses_patience(monkeypatch):
    monkeypatch.setattr(authorizations, "AUTHORIZE_SECONDS", ENOUGH)
    monkeypatch.setattr(admission, "PATIENCE_SECONDS", ENOUGH)


class Manager:
    """Counts for whom it is asked at the same time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.now: Counter[str] = Counter()
        self.most = 0
        self.most_of_one = 0
        self.lock = threading.Lock()

    def ask(self, user: str, wait) -> None:
        with self.lock:
            self.asked.append(user)
            self.now[user] += 1
            self.most = max(self.most, self.now.total())
            self.most_of_one = max(self.most_of_one, self.now[user])
        wait()
        with self.lock:
            self.now[user] -= 1


def in_doubt(hub: Hub, user: str, manager: Manager, wait) -> Client:
    return Client(
        hub, "a", user_id=user, authorized_at=0.0, authorize=lambda: manager.ask(user, wait)
    )


async def started(*clients: Client) -> None:
    for client in clients:
        await asyncio.wait_for(client.until(lambda client=client: client.messages), ENOUGH)


def test_the_first_crowd_after_a_start_is_asked_for_together_and_no_later_one_otherwise():
    """One after the other, 200 clients waited 20 s for a manager that took 0.1 s each."""
    crowd = 3 * AT_ONCE

    async def main() -> None:
        hub = Hub(MemoryLog(), OPTIONS)
        for _ in range(2):
            manager, together = Manager(), threading.Barrier(AT_ONCE, timeout=ENOUGH)
            clients = [in_doubt(hub, str(user), manager, together.wait) for user in range(crowd)]
            await started(*clients)
            assert not together.broken
            assert manager.most == AT_ONCE
            assert len(manager.asked) == crowd

    asyncio.run(main())


def test_whoever_is_not_logged_in_waits_for_no_other():
    async def main() -> None:
        hub = Hub(MemoryLog(), OPTIONS)
        manager, together = Manager(), threading.Barrier(AT_ONCE, timeout=ENOUGH)
        ask = {"authorized_at": 0.0, "authorize": lambda: manager.ask("", together.wait)}
        await started(*(Client(hub, "a", **ask) for _ in range(AT_ONCE)))
        assert manager.most == AT_ONCE

    asyncio.run(main())


def test_a_user_for_whom_it_takes_long_holds_up_no_other():
    """As many streams of one user as are asked for at once were enough to stop all others."""

    async def main() -> None:
        hub = Hub(MemoryLog(), replace(OPTIONS, poll_seconds=60))
        manager, goes_on = Manager(), threading.Event()
        theirs = [in_doubt(hub, "slow", manager, goes_on.wait) for _ in range(2 * AT_ONCE)]
        others = [in_doubt(hub, f"u{user}", manager, lambda: None) for user in range(20)]
        try:
            await started(*others)
            assert manager.asked.count("slow") == AT_ONCE_FOR_ONE
            assert not any(client.messages for client in theirs)
        finally:
            goes_on.set()
        await started(*theirs)
        assert manager.most_of_one == AT_ONCE_FOR_ONE < AT_ONCE
        assert len(manager.asked) == len(theirs) + len(others)

    asyncio.run(main())


def test_nothing_is_kept_of_whoever_was_asked_for_and_has_left():
    async def main() -> None:
        hub = Hub(MemoryLog(), OPTIONS)
        # A hub that nobody is left in forgets everything anyway.
        others = Client(hub, "a")
        client = Client(hub, "a", authorized_at=0.0)
        await started(client, others)
        client.leave()
        kept = weakref.ref(client)
        del client
        await asyncio.wait_for(let_go(kept), ENOUGH)

    async def let_go(kept) -> None:
        while kept() is not None:
            await asyncio.sleep(0.01)
            gc.collect()

    asyncio.run(main())
