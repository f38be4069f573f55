"""A hub takes what is of the log that it reads, from whatever version of the package it comes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from django_eventstream.events import Event
from django_eventstream.feeds.hearing import Hearing
from django_eventstream.hub.hub import Hub
from django_eventstream.publishers.messages import Packer
from django_eventstream.storage.base import LogPosition
from tests.unit.test_hub import OPTIONS, Client, MemoryLog

PATIENT = replace(OPTIONS, poll_seconds=600)


class OurLog(MemoryLog):
    name: str | None = "ours"

    async def get_position(self, channels: list[str]) -> LogPosition:
        return replace(await super().get_position(channels), log=self.name)


def event(data: str, event_id: int | None = None, log: str | None = None) -> Event:
    return Event("c", "message", data, event_id, log=log)


async def started(log: MemoryLog, **hold: object) -> tuple[Hub, Client]:
    hub = Hub(log, PATIENT)
    client = Client(hub, "c", **hold)
    await client.until(lambda: client.messages)
    return hub, client


def data_of(client: Client) -> list[str]:
    return [message.data for message in client.messages if message.type == "message"]


def test_an_event_of_another_log_is_not_taken_for_the_next_one():
    """Two sites with one broker: event 1 of one was taken for event 1 of the other."""

    async def main():
        hub, client = await started(OurLog())
        hub.offer([event("theirs", 1, "theirs"), event("ours", 1, "ours")])
        await client.until(lambda: data_of(client))
        assert data_of(client) == ["ours"]

    asyncio.run(main())


def test_a_hint_of_another_log_reads_nothing():
    async def main():
        log = OurLog()
        hub, client = await started(log)
        log.append("c", "1")
        hub.hint("c", 1, "theirs")
        before = log.reads
        hub.hint("c", 1, "ours")
        await client.until(lambda: data_of(client))
        assert log.reads == before + 1

    asyncio.run(main())


def test_a_stored_event_of_which_nobody_knows_the_log_makes_the_hub_look():
    """It comes from a process of before, during a deploy."""

    async def main():
        log = OurLog()
        hub, client = await started(log)
        log.append("c", "ours")
        hub.offer([event("theirs", 1)])
        await client.until(lambda: data_of(client))
        assert data_of(client) == ["ours"]

    asyncio.run(main())


@pytest.mark.parametrize("sender_knows", [True, False])
def test_an_event_that_is_not_stored_reaches_the_streams_of_its_log(sender_knows):
    async def main():
        hub, client = await started(OurLog(), reliable=(), unreliable=("c",))
        hub.offer([event("theirs", None, "theirs")])
        hub.offer([event("ours", None, "ours" if sender_knows else None)])
        await client.until(lambda: data_of(client))
        assert data_of(client) == ["ours"]

    asyncio.run(main())


class SlowLog(OurLog):
    def __init__(self) -> None:
        super().__init__()
        self.is_up = asyncio.Event()

    async def get_position(self, channels: list[str]) -> LogPosition:
        await self.is_up.wait()
        return await super().get_position(channels)


def test_an_event_that_is_not_stored_waits_until_the_hub_knows_its_log():
    """It was dropped: none came to those who were there before the log's first answer."""

    async def main():
        log = SlowLog()
        hub = Hub(log, PATIENT)
        client = Client(hub, "c", reliable=(), unreliable=("c",))
        hub.offer([event("theirs", None, "theirs"), event("ours", None, "ours")])
        log.is_up.set()
        await client.until(lambda: data_of(client))
        assert data_of(client) == ["ours"]

    asyncio.run(main())


def test_an_event_that_waits_is_not_for_those_who_come_when_all_have_left():
    async def main():
        log = SlowLog()
        hub = Hub(log, PATIENT)
        gone = Client(hub, "c", reliable=(), unreliable=("c",))
        hub.offer([event("for who was there", None, "ours")])
        hub.leave(gone.connection)
        client = Client(hub, "c", reliable=(), unreliable=("c",))
        log.is_up.set()
        await client.until(lambda: client.messages)
        hub.offer([event("for all", None, "ours")])
        await client.until(lambda: data_of(client))
        assert data_of(client) == ["for all"]

    asyncio.run(main())


@pytest.mark.parametrize("is_hint", [True, False])
def test_news_of_the_log_that_come_before_its_first_answer_are_asked_for(is_hint):
    """They were dropped, and read when the next regular question was due."""

    class LateLog(OurLog):
        def __init__(self) -> None:
            super().__init__()
            self.is_asked, self.may_answer = asyncio.Event(), asyncio.Event()

        async def get_position(self, channels: list[str]) -> LogPosition:
            position = await super().get_position(channels)
            self.is_asked.set()
            await self.may_answer.wait()
            return position

    async def main():
        log = LateLog()
        hub = Hub(log, PATIENT)
        client = Client(hub, "c", cursor="c:0,:0")
        await log.is_asked.wait()
        log.append("c", "news")
        if is_hint:
            hub.hint("c", 1, "ours")
        else:
            hub.offer([event("news", 1, "ours")])
        log.may_answer.set()
        await client.until(lambda: data_of(client))
        assert data_of(client) == ["news"]

    asyncio.run(main())


def test_an_event_of_before_asks_the_log_only_for_a_channel_that_is_held():
    """During a deploy each event of a process of before cost a question, whoever listened."""

    async def main():
        log = OurLog()
        hub, client = await started(log)
        looked = []
        hub._follower.look = lambda: looked.append(True)
        hub.offer([replace(event("elsewhere", 1), channel="nobody holds it")])
        assert not looked
        hub.offer([event("here", 1)])
        assert looked

    asyncio.run(main())


def test_a_message_of_before_is_understood_and_one_of_now_is_by_those_of_before():
    """The log stands in a part that they do not look at."""
    [message] = Packer().pack([event("x", None, "ours")])
    assert message.pop("log") == "ours"
    assert set(message) == {"type", "sender", "number", "events", "hints"}
    assert all(len(values) == 6 for values in message["events"])

    async def main():
        hub, client = await started(OurLog(), reliable=(), unreliable=("c",))
        Hearing().hear({**message, "sender": "another process"}, hub)
        await client.until(lambda: data_of(client))

    asyncio.run(main())


def test_a_message_is_of_one_log():
    sent = [event("1", 1, "a"), event("2", 2, "a"), event("3", 1, "b"), event("4", 3, "a")]
    found = [(m["log"], [e[2] for e in m["events"]]) for m in Packer().pack(sent)]
    assert found == [("a", ["1", "2"]), ("b", ["3"]), ("a", ["4"])]


class UnknownLog(OurLog):
    """A log of which nobody can say which it is."""

    name = None


@pytest.mark.parametrize("carries", [True, False])
def test_a_hub_that_cannot_say_which_log_it_reads_looks_there(carries):
    """What came meanwhile was dropped, and found by the next regular question."""

    async def main():
        log = UnknownLog()
        hub, client = await started(log)
        log.append("c", "ours")
        if carries:
            hub.offer([event("theirs", 1, "theirs")])
        else:
            hub.hint("c", 1, "theirs")
        await client.until(lambda: data_of(client))
        assert data_of(client) == ["ours"]

    asyncio.run(main())


def test_a_log_that_was_known_once_is_not_forgotten():
    async def main():
        log = OurLog()
        hub, client = await started(log)
        log.name = None
        await hub._follower.ask(["c"])
        hub.offer([event("ours", 1, "ours")])
        await client.until(lambda: data_of(client))

    asyncio.run(main())
