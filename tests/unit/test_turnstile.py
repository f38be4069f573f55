"""Requests for streams ask Django in turn, and whoever leaves holds up nobody."""

from __future__ import annotations

import asyncio
import time

import pytest

from django_eventstream.web import turnstile as turnstile_module
from django_eventstream.web.turnstile import Incoming, Place, RequestRefusedError, Turnstile
from tests.services.deadline import HEALTHY

REQUEST = {"type": "http.request", "body": b"", "more_body": False}
GONE = {"type": "http.disconnect"}


class Client:
    """Says what a test puts into `says`."""

    def __init__(self, *says: dict) -> None:
        self.says: asyncio.Queue[dict] = asyncio.Queue()
        for message in says or (REQUEST,):
            self.says.put_nowait(message)
        self.incoming = Incoming(self.says.get)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def enter(turnstile: Turnstile, client: Client) -> asyncio.Task[Place | None]:
    return asyncio.ensure_future(turnstile.enter(client.incoming))


def test_so_many_go_in_at_once_and_the_others_follow_in_order():
    async def main():
        turnstile = Turnstile(2)
        asking = [enter(turnstile, Client()) for _ in range(5)]
        for inside in range(2, 6):
            await settle()
            assert [task.done() for task in asking] == [True] * inside + [False] * (5 - inside)
            asking[inside - 2].result().leave()

    asyncio.run(main())


def test_requests_that_hang_let_others_in_besides_them(monkeypatch):
    """As many as there are places, on frozen connections, and no stream was opened any more."""
    monkeypatch.setattr(turnstile_module, "OVERDUE_SECONDS", 0.02)

    async def main():
        turnstile = Turnstile(2)
        asking = [enter(turnstile, Client()) for _ in range(5)]
        await asyncio.wait(asking[:4], timeout=HEALTHY)
        await asyncio.sleep(0.1)  # several times as long as it would take the fifth
        assert [task.done() for task in asking] == [True] * 4 + [False]
        for task in asking[:4]:
            task.result().leave()
        asking.append(enter(turnstile, Client()))
        await asyncio.wait(asking[4:], timeout=HEALTHY)
        assert [task.done() for task in asking[4:]] == [True] * 2
        # All places are there again, and no more of them than there were.
        for task in asking[4:]:
            task.result().leave()
        again = [enter(turnstile, Client()) for _ in range(3)]
        await settle()
        assert [task.done() for task in again] == [True, True, False]
        for task in again:
            task.cancel()

    asyncio.run(main())


def test_a_place_can_be_left_only_once():
    async def main():
        turnstile = Turnstile(1)
        place = await turnstile.enter(Client().incoming)
        others = [enter(turnstile, Client()) for _ in range(2)]
        await settle()
        place.leave()
        place.leave()
        await settle()
        assert [task.done() for task in others] == [True, False]
        others[1].cancel()

    asyncio.run(main())


def test_a_client_that_leaves_while_it_waits_is_passed_over():
    async def main():
        turnstile, impatient = Turnstile(1), Client()
        place = await turnstile.enter(Client().incoming)
        waiting, last = enter(turnstile, impatient), enter(turnstile, Client())
        await settle()
        impatient.says.put_nowait(GONE)
        await settle()
        assert waiting.result() is None
        assert impatient.incoming.is_gone
        place.leave()
        assert await last is not None

    asyncio.run(main())


def test_a_client_that_leaves_as_its_turn_comes_hands_it_on():
    async def main():
        turnstile, impatient = Turnstile(1), Client()
        place = await turnstile.enter(Client().incoming)
        waiting, last = enter(turnstile, impatient), enter(turnstile, Client())
        await settle()
        impatient.says.put_nowait(GONE)
        await asyncio.sleep(0)
        place.leave()
        assert await asyncio.wait_for(last, HEALTHY) is not None
        assert waiting.result() is None

    asyncio.run(main())


@pytest.mark.parametrize("leaves_first", [True, False])
def test_a_request_that_the_server_cancels_keeps_no_place(leaves_first):
    async def main():
        turnstile = Turnstile(1)
        place = await turnstile.enter(Client().incoming)
        waiting, last = enter(turnstile, Client()), enter(turnstile, Client())
        await settle()
        if leaves_first:
            place.leave()
        waiting.cancel()
        place.leave()
        assert await asyncio.wait_for(last, HEALTHY) is not None

    asyncio.run(main())


def test_what_came_while_a_client_waited_is_there_for_django():
    async def main():
        turnstile, client = Turnstile(1), Client()
        place = await turnstile.enter(Client().incoming)
        waiting = enter(turnstile, client)
        await settle()
        place.leave()
        await waiting
        assert await client.incoming.receive() == REQUEST
        listening = asyncio.ensure_future(client.incoming.receive())
        client.says.put_nowait(GONE)
        assert await listening == GONE
        assert client.incoming.is_gone

    asyncio.run(main())


def test_a_request_is_complete_once_its_body_has_come():
    async def main():
        part = {"type": "http.request", "body": b"x", "more_body": True}
        client = Client(part, part)
        completing = asyncio.ensure_future(client.incoming.complete())
        await settle()
        assert not completing.done()
        client.says.put_nowait(REQUEST)
        await asyncio.wait_for(completing, HEALTHY)
        assert [await client.incoming.receive() for _ in range(3)] == [part, part, REQUEST]

    asyncio.run(main())


def test_a_request_that_does_not_come_to_its_end_is_refused(monkeypatch):
    monkeypatch.setattr(turnstile_module, "BODY_SECONDS", 0.01)

    async def main():
        client = Client({"type": "http.request", "body": b"x", "more_body": True})
        with pytest.raises(RequestRefusedError) as refused:
            await client.incoming.complete()
        assert refused.value.status == 408
        await client.incoming.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_no_more_of_a_body_is_kept_than_a_request_for_a_stream_may_have():
    async def main():
        part = {"type": "http.request", "body": b"x" * 20_000, "more_body": True}
        client = Client(*[part] * 9)
        with pytest.raises(RequestRefusedError) as refused:
            await client.incoming.complete()
        assert refused.value.status == 413
        assert client.says.qsize() == 5
        # Django gets all of it where it may be for somebody else.
        assert [await client.incoming.receive() for _ in range(9)] == [part] * 9

    asyncio.run(main())


def test_a_client_that_leaves_in_the_middle_of_its_request_is_heard():
    async def main():
        client = Client({"type": "http.request", "body": b"x", "more_body": True}, GONE)
        await asyncio.wait_for(client.incoming.complete(), HEALTHY)
        assert client.incoming.is_gone

    asyncio.run(main())


@pytest.mark.parametrize("limit", ["WAIT_SECONDS", "STALL_SECONDS"])
def test_a_request_waits_for_a_bounded_time(monkeypatch, limit):
    monkeypatch.setattr(turnstile_module, limit, 0.01)

    async def main():
        turnstile, client = Turnstile(1), Client()
        place = await turnstile.enter(Client().incoming)
        assert await asyncio.wait_for(turnstile.enter(client.incoming), HEALTHY) is None
        assert not client.incoming.is_gone
        await client.incoming.close()
        # It keeps no place in the queue.
        place.leave()
        assert await turnstile.enter(Client().incoming) is not None

    asyncio.run(main())


def test_requests_that_hang_for_good_let_others_in_more_and_more_slowly(monkeypatch, caplog):
    """Twice as many as there are places, and newcomers got not a byte any more."""
    monkeypatch.setattr(turnstile_module, "OVERDUE_SECONDS", 0.01)
    monkeypatch.setattr(turnstile_module, "STUCK_SECONDS", 0.02)

    async def main():
        turnstile, inside = Turnstile(2), []
        for _ in range(10):
            inside.append(await asyncio.wait_for(turnstile.enter(Client().incoming), 30))
        # By their own times: this task may run much later.
        waits = [b._since - a._since for a, b in zip(inside, inside[2:], strict=False)]
        for number, least in enumerate([0.01, 0.02, 0.04, 0.08]):
            assert min(waits[2 * number : 2 * number + 2]) >= least * 0.9
        for place in inside:
            place.leave()
        # All places are there again, and no more of them than there were.
        again = [enter(turnstile, Client()) for _ in range(3)]
        await settle()
        assert [task.done() for task in again] == [True, True, False]
        again[2].cancel()

    asyncio.run(main())
    hanging = [record.args[0] for record in caplog.records]
    assert hanging == [1, 3, 5, 7]


def test_each_crowd_that_hangs_is_waited_for_twice_as_long_as_the_one_before():
    queue, waits = turnstile_module._Queue(2), []
    for _ in range(8):
        waits.append(queue.patience())
        queue.give_away()
    minute = turnstile_module.STUCK_SECONDS
    first = turnstile_module.OVERDUE_SECONDS
    assert waits[::2] == waits[1::2] == [first, minute, 2 * minute, 4 * minute]


def test_a_queue_that_moves_is_waited_in_for_longer():
    async def main():
        queue = turnstile_module._Queue(1)
        assert queue.enter_now()
        next_one = asyncio.ensure_future(queue.enter(None))
        await settle()
        longer = (turnstile_module.STALL_SECONDS + turnstile_module.WAIT_SECONDS) / 2
        came = time.monotonic() - longer
        assert queue._rest(came) < 0
        queue.leave()
        assert await next_one
        assert queue._rest(came) > 0

    asyncio.run(main())


def test_each_event_loop_has_places_of_its_own():
    turnstile = Turnstile(1)
    for _ in range(2):
        assert asyncio.run(turnstile.enter(Incoming(lambda: asyncio.sleep(0)))) is not None
