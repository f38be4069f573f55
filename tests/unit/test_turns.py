"""Readers of the log take turns: first come, first served, page by page, whoever they are."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from types import SimpleNamespace

from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.hub.hub import Hub
from django_eventstream.hub.reads import ReadQueue
from tests.unit.test_convoy import Outlet, until
from tests.unit.test_hub import OPTIONS, MemoryLog, numbers

STORED = 1_500
ONLY_TOLD = replace(OPTIONS, poll_seconds=60)
"""Nothing is asked for but by those who wait."""


class Diary(MemoryLog):
    """Notes what was read, in its order."""

    def __init__(self, **stored: int) -> None:
        super().__init__()
        self.pages: list[tuple[str, int]] = []
        """Channel, and after which id."""
        for channel, count in stored.items():
            for _ in range(count):
                self.append(channel)

    async def read(self, channel, after, limit, max_bytes):
        self.pages.append((channel, after))
        return await super().read(channel, after, limit, max_bytes)


def with_diary(**stored: int):
    def decorate(test):
        async def main() -> None:
            log = Diary(**stored)
            await test(log, Hub(log, ONLY_TOLD))

        def run() -> None:
            asyncio.run(main())

        run.__doc__, run.__name__ = test.__doc__, test.__name__
        return run

    return decorate


class Patient(Outlet):
    """Notes how many pages had been read, for whomever, when it was sent something."""

    def __init__(self, log: Diary, hub: Hub, *channels: str, cursor: str) -> None:
        super().__init__(hub, *channels, cursor=cursor)
        self.notes: list[int] = []
        self.on_send = lambda: self.notes.append(len(log.pages))

    def waits_for(self, readers: int) -> bool:
        """Whether every page came after at most one for each, and the one that was being read."""
        assert len(self.notes) > 10
        waits = [b - a for a, b in zip(self.notes, self.notes[1:], strict=False)]
        return max(waits) <= readers + 1


@with_diary(a=STORED, b=STORED)
async def test_whoever_replays_everything_holds_up_nobody_who_is_not_far_behind(log, hub):
    """Of a channel the oldest page came first, always: two who replayed it silenced the others."""
    old = [Outlet(hub, "a", cursor=f"a:{last}") for last in (0, 300)]
    late = Patient(log, hub, "a", cursor="a:1300")
    elsewhere = Patient(log, hub, "b", cursor="b:1200")
    everybody = [*old, late, elsewhere]
    await until(lambda: all(client.cursor.endswith(f":{STORED}") for client in everybody))
    assert late.waits_for(len(everybody))
    assert elsewhere.waits_for(len(everybody))
    assert late.data == numbers(1301, STORED)
    assert [len(client.data) for client in old] == [STORED, STORED - 300]


@with_diary(a=STORED, b=STORED, c=STORED)
async def test_thirty_at_random_places_wait_their_turn_once_for_each_page(log, hub):
    """On several channels as on one: each of them has one turn, not each channel."""
    chance = random.Random(8)
    crowd = [
        Outlet(hub, channel, cursor=f"{channel}:{chance.randrange(1_200)}")
        for channel in ["a"] * 24 + ["b"] * 5
    ]
    late = [Patient(log, hub, channel, cursor=f"{channel}:1300") for channel in "abc"]
    everybody = [*crowd, *late]
    await until(lambda: all(client.cursor.endswith(f":{STORED}") for client in late))
    assert all(client.waits_for(len(everybody)) for client in late)
    for client in everybody:
        hub.leave(client.connection)


@with_diary(a=STORED, b=STORED)
async def test_a_stream_of_several_channels_waits_for_one_page_at_a_time(log, hub):
    """With more channels it had more turns, and kept a page of each."""
    greedy = Outlet(hub, "a", "b", cursor="a:0,b:0")
    other = Patient(log, hub, "a", cursor="a:700")
    await until(lambda: greedy.cursor == f"a:{STORED},b:{STORED}" and len(other.data) == 800)
    theirs = [name for name, after in log.pages if name == "b" or after < 700]
    assert set(theirs[:6]) == {"a", "b"}
    assert other.waits_for(2)


@with_diary(a=STORED)
async def test_what_is_new_has_its_turn_among_those_who_are_behind(log, hub):
    """Where others send fast enough, only the newest was read: who was behind got nothing."""
    behind = Outlet(hub, "a", cursor="a:0")
    ahead = Patient(log, hub, "a", cursor=f"a:{STORED}")
    read, is_over = log.read, False

    async def read_and_append(*arguments):
        if not is_over:
            hub.hint("a", log.append("a").id)
        return await read(*arguments)

    log.read = read_and_append
    hub.hint("a", log.append("a").id)
    await until(lambda: len(behind.data) > 200 and len(ahead.notes) > 10)
    assert ahead.waits_for(2)
    is_over = True
    await until(lambda: behind.cursor == ahead.cursor)
    assert behind.data == numbers(1, len(log.events["a"]))


@with_diary(a=STORED, b=STORED)
async def test_keep_alives_go_on_while_a_page_is_waited_for(log, hub):
    never = asyncio.Event()
    client = Outlet(hub, "a", cursor="a:0")
    log.read = lambda *_: never.wait()
    await until(lambda: client.connection.convoy.is_waiting)
    client.connection.keep_alive()
    await until(lambda: client.of_type("keep-alive"))
    hub.leave(client.connection)


@with_diary(a=STORED)
async def test_whoever_waited_for_a_read_that_failed_at_first_has_the_next_turn(log, hub):
    """Nobody gave turns any more when the log was back: it waited for the next one who asked."""
    ahead = Outlet(hub, "a", cursor=f"a:{STORED}")
    await until(lambda: ahead.messages)
    read, is_away = log.read, True

    async def read_or_fail(*arguments):
        if is_away:
            raise StorageUnavailableError("away")
        return await read(*arguments)

    log.read = read_or_fail
    hub.hint("a", log.append("a").id)
    behind = Outlet(hub, "a", cursor="a:0")
    await until(lambda: behind.connection.convoy.is_waiting)
    for _ in range(20):  # turns of the loop, in which its turn comes in vain
        await asyncio.sleep(0)
    is_away = False
    await until(lambda: behind.cursor == ahead.cursor == f"a:{STORED + 1}")
    assert behind.data == numbers(1, STORED + 1)


def test_whoever_was_put_off_keeps_their_turn():
    queue = ReadQueue()
    wishes = [SimpleNamespace(channel="a", is_wanted=lambda: True) for _ in range(4)]
    for wish in wishes[:3]:
        queue.add(wish)
    served = [queue.take()]
    assert queue.take() is None
    queue.add(wishes[3])
    for _ in range(3):
        queue.release("a")
        served.append(queue.take())
    assert served == wishes
