"""A log, or a channel manager, that does not answer: it costs those who wait for it, and them only.

The threads of these tests hang until the test ends, as they do on a connection whose packets a
firewall drops.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from django_eventstream.events import Event
from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.hub import admission, authorizations, follower, log, revocations
from django_eventstream.hub.hub import Hub
from django_eventstream.hub.log import LogReader
from django_eventstream.hub.revocations import ControlMark
from django_eventstream.storage.base import LogPosition
from tests.services.deadline import HEALTHY
from tests.unit.test_hub import OPTIONS, Client, in_a_loop
from tests.unit.test_revocations import hold

ENOUGH = 20


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch):
    # Long enough for what does not hang: on a busy machine a thread may begin 50 ms late.
    monkeypatch.setattr(log, "QUESTION_SECONDS", 0.3)
    monkeypatch.setattr(log, "LONGEST_QUESTION_SECONDS", 2.4)
    monkeypatch.setattr(log, "PAUSES", (0, 0, 0, *[0.1] * 17))
    monkeypatch.setattr(log, "RELAY_SECONDS", 0.6)
    monkeypatch.setattr(admission, "ASK_SECONDS", 0.3)
    monkeypatch.setattr(admission, "PATIENCE_SECONDS", 2.4)
    monkeypatch.setattr(authorizations, "AUTHORIZE_SECONDS", 0.4)
    monkeypatch.setattr(revocations, "WAIT_SECONDS", 0.3)
    monkeypatch.setattr(follower, "RETRY_SECONDS", 0.02)


class Storage:
    """A log of one channel, which can be slow, and whose connections can freeze."""

    def __init__(self) -> None:
        self.events = [Event("a", "message", str(n), n) for n in range(1, 6)]
        self.frozen_calls: Counter[str] = Counter()
        """How many of the next calls never return."""
        self.read_seconds = 0.0
        self.epoch = 0
        self.over = threading.Event()
        self.calls: Counter[str] = Counter()

    def get_position(self, channels: list[str]) -> LogPosition:
        answer = LogPosition(
            {name: len(self.events) if name == "a" else 0 for name in channels}, self.epoch
        )
        self._call("get_position")
        return answer

    def read(self, channel: str, after: int, limit: int, max_bytes: int) -> list[Event]:
        self._call("read")
        self.over.wait(self.read_seconds)
        return self.events[after : after + limit] if channel == "a" else []

    def freeze(self) -> None:
        self.frozen_calls.update(get_position=10**6, read=10**6)

    def thaw(self) -> None:
        """From now on; what hangs goes on hanging."""
        self.frozen_calls.clear()

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        if self.frozen_calls[name]:
            self.frozen_calls[name] -= 1
            self.over.wait(ENOUGH)


def with_storage(test):
    """Runs a test with a storage and a hub that asks it; in the end its threads go on."""

    def run() -> None:
        storage = Storage()

        async def main() -> None:
            try:
                await test(storage, Hub(LogReader(storage), OPTIONS))
            finally:
                storage.over.set()

        asyncio.run(main())

    run.__doc__ = test.__doc__
    run.__name__ = test.__name__
    return run


async def until(is_so) -> None:
    async def asking() -> None:
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    await asyncio.wait_for(asking(), HEALTHY)


@with_storage
async def test_a_question_that_hangs_is_abandoned_and_the_next_one_is_answered(storage, hub):
    """All questions of a hub were asked in one thread, for which everybody waited for ever."""
    reader = LogReader(storage)
    storage.frozen_calls["read"] = 1
    hung = asyncio.ensure_future(reader.read("a", 0, 9, 999))
    assert (await reader.get_position(["a"])).ids == {"a": 5}
    with pytest.raises(StorageUnavailableError, match="did not answer"):
        await hung
    assert len(await reader.read("a", 0, 9, 999)) == 5
    assert reader.threads == 2
    storage.over.set()
    await until(lambda: reader.threads == 1)
    reader.rest()
    await until(lambda: reader.threads == 0)


@with_storage
async def test_questions_that_hang_are_bounded(storage, hub):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "PAUSES", (0,) * 5)
        reader = LogReader(storage)
    storage.freeze()
    for _ in range(8):
        with pytest.raises(StorageUnavailableError):
            await reader.get_position(["a"])
    assert storage.calls["get_position"] == reader.threads == 5
    storage.over.set()
    await until(lambda: reader.threads == 0)
    storage.thaw()
    assert (await reader.get_position(["a"])).ids == {"a": 5}


@with_storage
async def test_a_question_whose_caller_has_gone_holds_up_nobody(storage, hub):
    reader = LogReader(storage)
    storage.frozen_calls["get_position"] = 1
    leaving = asyncio.ensure_future(reader.get_position(["a"]))
    await until(lambda: storage.calls["get_position"])
    leaving.cancel()
    assert (await reader.get_position(["a"])).ids == {"a": 5}


@with_storage
async def test_a_log_that_is_merely_slow_is_read_all_the_same(storage, hub):
    """Abandoned after the same time again and again, the read would never come to its end."""
    storage.read_seconds = 0.9
    client = Client(hub, "a", cursor="a:0")
    await client.until_at(a=5)
    assert client.data() == ["1", "2", "3", "4", "5"]


@with_storage
async def test_a_newcomer_is_served_though_a_read_of_another_stream_hangs(storage, hub):
    storage.frozen_calls["read"] = 1
    held = Client(hub, "a", cursor="a:0")
    await held.until(lambda: held.messages)
    newcomer = Client(hub, "a")
    await newcomer.until(lambda: newcomer.messages)
    await held.until_at(a=5)


@with_storage
async def test_a_newcomer_is_sent_away_in_time_and_open_streams_go_on_later(storage, hub):
    """Neither got another byte but keep-alives, even when the database was back."""
    held = Client(hub, "a", cursor="a:5")
    await held.until(lambda: held.messages)
    storage.freeze()
    joined_at = time.monotonic()
    newcomer = Client(hub, "a")
    await newcomer.until(lambda: newcomer.has_end)
    assert time.monotonic() - joined_at >= 1.8
    assert 1_000 <= newcomer.retry <= 5_000
    assert newcomer.messages == []
    storage.events.append(Event("a", "message", "6", 6))
    storage.thaw()
    await held.until_at(a=6)
    again = Client(hub, "a", cursor="a:5")
    await again.until_at(a=6)
    assert held.retry is None


@with_storage
async def test_an_answer_that_comes_too_late_does_not_undo_a_later_one(storage, hub):
    """It would have told all streams to start over, of an epoch that is gone."""
    held = Client(hub, "a", cursor="a:5")
    await held.until(lambda: held.messages)
    follower = hub._follower
    # The hub's own question must not be the one that freezes: from now on it asks when it is told.
    follower._poll_seconds = 3_600
    asked = follower._asked
    hub.look()
    await until(lambda: follower._asked > asked and follower._answered == follower._asked)
    storage.frozen_calls["get_position"] = 1
    asking = asyncio.ensure_future(follower.ask(["a"]))
    await until(lambda: not storage.frozen_calls["get_position"])
    storage.epoch = 77
    hub.look()
    await held.until(lambda: held.resets())
    storage.over.set()
    with pytest.raises(StorageUnavailableError):
        await asking
    await asyncio.sleep(0.1)
    held.take()
    assert len(held.resets()) == 1


@with_storage
async def test_a_relay_that_hangs_is_abandoned_and_another_one_begins(storage, hub):
    """No events that were left behind were numbered by that process any more."""
    begun = []

    def relay(channels) -> None:
        begun.append(channels)
        if len(begun) == 1:
            storage.over.wait(ENOUGH)

    reader = LogReader(storage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "relay", relay)
        with pytest.raises(StorageUnavailableError):
            await reader.relay(["a"])
        await reader.relay(["a"])
    assert len(begun) == 2


@with_storage
async def test_a_channel_manager_that_hangs_costs_its_own_client_only(storage, hub):
    """They were asked one after the other: everybody waited for one that never answered."""
    frozen = Client(hub, "a", user_id="7", authorized_at=0.0, authorize=storage.over.wait)
    other = Client(hub, "a", user_id="8", authorized_at=0.0)
    await other.until(lambda: other.messages)
    await frozen.until(lambda: frozen.has_end)
    assert 1_000 <= frozen.retry <= 5_000
    assert frozen.messages == []


@with_storage
async def test_channel_managers_that_hang_are_bounded(storage, hub):
    limit = len(authorizations.PAUSES)
    clients = [
        Client(hub, "a", user_id=user, authorized_at=0.0, authorize=lambda: storage.over.wait(9))
        for user in map(str, range(limit + 20))
    ]
    for client in clients:
        await client.until(lambda client=client: client.has_end)
    assert hub.statistics().threads <= limit + 1


@with_storage
async def test_a_channel_manager_that_fails_strands_nobody(storage, hub):
    """The task that starts streams died of it, with all who waited to be started."""

    def fail() -> None:
        raise ValueError("a fault of the project's")

    failing = Client(hub, "a", user_id="7", authorized_at=0.0, authorize=fail)
    other = Client(hub, "a", user_id="8", authorized_at=0.0)
    await other.until(lambda: other.messages)
    await failing.until(lambda: failing.has_end)
    assert 1_000 <= failing.retry <= 5_000


@with_storage
async def test_a_client_with_a_ticket_does_not_wait_for_a_log_that_hangs(storage, hub):
    with hub.staying_awake():
        storage.freeze()
        with pytest.raises(StorageUnavailableError):
            await hub.may_return(hold(), ControlMark(0, 0))


@in_a_loop
async def test_a_fault_while_streams_are_started_or_read_for_strands_nobody(memory, hub):
    """`RuntimeError: can't start new thread`, once: whoever joined just then waited for ever."""

    async def fail_once(*arguments):
        memory.get_position, memory.read = usual
        raise RuntimeError("can't start new thread")

    usual = memory.get_position, memory.read
    memory.append("a")
    memory.get_position = fail_once
    client = Client(hub, "a", cursor="a:0")
    await client.until_at(a=1)
    memory.append("a")
    memory.read = fail_once
    hub.hint("a", 2)
    await client.until_at(a=2)
    assert hub.statistics().task_failures >= 2


class Faulty:
    """A stream for which no ticket can be made, from some time on."""

    def __init__(self, hub: Hub, *, works: int) -> None:
        self.works = works
        self.error: Exception | None = None
        hub.join(replace(hold("7", "a"), ticket_seconds=9, stamp=self.stamp), self)

    def stamp(self) -> str:
        self.works -= 1
        if self.works < 0:
            raise ValueError("no ticket")
        return "ticket"

    def send(self, chunk: bytes) -> bool:
        return True

    def end(self, error: Exception | None = None) -> None:
        self.error = error


@in_a_loop
async def test_a_stream_that_cannot_be_started_costs_no_other_its_start(memory, hub):
    faulty = Faulty(hub, works=0)
    client = Client(hub, "a")
    await client.until(lambda: client.messages)
    await until(lambda: isinstance(faulty.error, ValueError))


@in_a_loop
async def test_a_stream_that_cannot_be_drained_costs_no_other_its_end(memory, hub):
    """All streams after it stayed open when the process was told to stop."""
    faulty = Faulty(hub, works=1)
    client = Client(hub, "a")
    await client.until(lambda: client.messages)
    await until(lambda: faulty.works == 0)
    hub.drain()
    await client.until(lambda: client.has_end)
    assert isinstance(faulty.error, ValueError)
