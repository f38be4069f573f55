"""The tasks of a hub: none ends unseen, and none for good but by its owner."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextvars import ContextVar

import pytest

from django_eventstream.hub import tasks as module
from django_eventstream.hub.keepalive import SLOTS, KeepAliveWheel
from django_eventstream.hub.tasks import NamedTasks
from django_eventstream.hub.turn import NextTurn
from tests.services.deadline import HEALTHY


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(module, "growing_pause", lambda failures: 0.001 * failures)


async def until(is_so) -> None:
    async def asking() -> None:
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    await asyncio.wait_for(asking(), HEALTHY)


def logged(caplog) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == module.__name__]


def test_a_task_that_fails_begins_again_and_is_logged_once_and_counted(caplog):
    """`RuntimeError: can't start new thread`, once, and a hub heard of no event any more."""
    begun = []

    async def follow() -> None:
        begun.append(1)
        if len(begun) < 4:
            raise RuntimeError("can't start new thread")
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        tasks = NamedTasks()
        tasks.supervise("follow", follow)
        await until(lambda: len(begun) == 4)
        assert tasks.failures == 3
        tasks.cancel()

    asyncio.run(main())
    [record] = logged(caplog)
    assert "follow" in record.getMessage()
    assert "can't start new thread" in str(record.exc_info[1])


def test_nothing_of_whoever_begins_a_task_is_in_its_context():
    """The hub's statements were traced as those of the first client, for ever."""
    client: ContextVar[str] = ContextVar("client")
    found = []

    class Noting:
        def serve(self) -> None:
            found.append(client.get("nobody"))

        def break_off(self, error: Exception) -> None:
            raise error

    async def note() -> None:
        found.append(client.get("nobody"))

    async def main() -> None:
        client.set("the first")
        tasks, turn = NamedTasks(), NextTurn()
        tasks.ensure("note", note)
        turn.note(Noting())
        await until(lambda: len(found) == 2)
        tasks.cancel()

    asyncio.run(main())
    assert found == ["nobody", "nobody"]


def test_a_supervised_task_that_returns_begins_again_and_any_other_has_done_its_work(caplog):
    begun = []

    async def note(name: str) -> None:
        begun.append(name)

    async def main() -> None:
        tasks = NamedTasks()
        tasks.ensure("once", lambda: note("once"))
        tasks.supervise("feed", lambda: note("feed"))
        await until(lambda: begun.count("feed") == 3)
        tasks.cancel()

    asyncio.run(main())
    assert begun.count("once") == 1
    assert len(logged(caplog)) == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="nobody knows who cancelled what")
def test_a_task_whose_future_somebody_else_cancelled_begins_again():
    begun: list[asyncio.Future] = []

    async def follow() -> None:
        begun.append(asyncio.get_running_loop().create_future())
        await begun[-1]

    async def main() -> None:
        tasks = NamedTasks()
        tasks.supervise("feed", follow)
        await until(lambda: begun)
        begun[0].cancel()
        await until(lambda: len(begun) == 2)
        tasks.cancel()

    asyncio.run(main())


def test_a_task_that_is_cancelled_stays_so_between_two_lives_too(caplog):
    begun = []

    async def fail() -> None:
        begun.append(1)
        raise ValueError

    async def main() -> None:
        tasks = NamedTasks()
        tasks.ensure("a", fail)
        await until(lambda: tasks.failures)
        tasks.cancel()
        count = len(begun)
        await asyncio.sleep(0.05)
        assert len(begun) == count

    asyncio.run(main())


def test_an_event_loop_that_ends_takes_its_tasks_along_in_silence(caplog):
    async def main() -> None:
        NamedTasks().supervise("follow", lambda: asyncio.sleep(60))
        await asyncio.sleep(0)

    asyncio.run(main())
    assert logged(caplog) == []


class Faulty:
    """A stream whose every sign of life fails, and so does its end."""

    def __init__(self) -> None:
        self.broken = 0

    def keep_alive(self) -> None:
        raise RuntimeError("a fault")

    serve = keep_alive

    def break_off(self, error: Exception) -> None:
        self.broken += 1
        raise RuntimeError("another fault")


class Healthy:
    def __init__(self) -> None:
        self.served = 0

    def serve(self) -> None:
        self.served += 1

    keep_alive = serve

    def break_off(self, error: Exception) -> None:
        raise AssertionError(error)


def test_a_connection_that_fails_costs_no_other_its_sign_of_life():
    """The wheel stopped for all: proxies cut every stream of the process as idle."""

    async def main() -> None:
        wheel = KeepAliveWheel(0.02)
        faulty, healthy = Faulty(), Healthy()
        for _ in range(SLOTS):  # one of each in every slot
            wheel.add(faulty := Faulty())
            wheel.add(healthy := Healthy())
        turning = asyncio.ensure_future(wheel.run())
        await until(lambda: healthy.served > 1 and faulty.broken > 1)
        turning.cancel()

    asyncio.run(main())


def test_a_connection_that_fails_costs_no_other_its_events():
    """Ending a stream after a fault may fail as well: those noted after it were forgotten."""

    async def main() -> None:
        turn, faulty, healthy = NextTurn(), Faulty(), Healthy()
        turn.note(faulty)
        turn.note(healthy)
        await until(lambda: healthy.served)
        assert faulty.broken == 1

    asyncio.run(main())
