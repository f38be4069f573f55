"""Pumps: what one client's `send()` does is no matter of the others."""

from __future__ import annotations

import asyncio

import pytest

from django_eventstream.hub.pump import Pump
from django_eventstream.hub.turn import NextTurn


class Chunks:
    """A connection, as a pump sees it: it sends one chunk after the other."""

    def __init__(self, turn: NextTurn, send, *chunks: bytes) -> None:
        self.chunks = list(chunks)
        self.pump = Pump(send)
        self.pump.connection = self
        self.turn = turn
        self.error: Exception | None = None
        turn.note(self)

    def serve(self) -> None:
        while self.chunks and self.pump.send(self.chunks.pop(0)):
            pass

    def ready(self) -> None:
        self.turn.note(self)

    def break_off(self, error: Exception) -> None:
        self.pump.end(error)


class Broken(Chunks):
    def serve(self) -> None:
        raise RuntimeError("serve")


def run(test) -> None:
    asyncio.run(test())


def recorder(sent: list[bytes]):
    async def send(message) -> None:
        sent.append(message["body"])

    return send


async def some_turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("bug"), asyncio.CancelledError()])
def test_a_send_that_raises_ends_its_own_stream_and_silences_no_other(error):
    async def failing(message) -> None:
        raise error

    async def test() -> None:
        turn, sent = NextTurn(), []
        bad = Chunks(turn, failing, b"1")
        good = Chunks(turn, recorder(sent), b"1", b"2")
        assert await bad.pump.ended is error
        assert sent == [b"1", b"2"]
        assert not good.pump.ended.done()

    run(test)


def test_a_sender_that_raises_silences_no_other():
    async def test() -> None:
        turn, sent = NextTurn(), []
        bad = Broken(turn, recorder([]))
        Chunks(turn, recorder(sent), b"1")
        assert str(await bad.pump.ended) == "serve"
        assert sent == [b"1"]

    run(test)


def test_a_client_that_does_not_read_waits_alone_and_keeps_its_order():
    async def test() -> None:
        turn, slow, quick = NextTurn(), [], []
        writable = asyncio.Event()

        async def blocking(message) -> None:
            await writable.wait()
            slow.append(message["body"])

        Chunks(turn, blocking, b"1", b"2", b"3")
        Chunks(turn, recorder(quick), b"1")
        await some_turns()
        assert (slow, quick) == ([], [b"1"])
        writable.set()
        await some_turns()
        assert slow == [b"1", b"2", b"3"]

    run(test)


def test_a_send_that_fails_later_ends_its_stream():
    async def failing_later(message) -> None:
        await asyncio.sleep(0.001)
        raise OSError("gone")

    async def test() -> None:
        pump = Chunks(NextTurn(), failing_later, b"1").pump
        assert str(await pump.ended) == "gone"

    run(test)


def test_a_server_finds_the_connections_own_task_in_send():
    async def test() -> None:
        found = []

        async def send(message) -> None:
            found.append(asyncio.current_task())

        Chunks(NextTurn(), send, b"1")
        await some_turns()
        assert found == [asyncio.current_task()]

    run(test)


def test_what_a_middleware_writes_into_a_message_reaches_no_other_client():
    async def test() -> None:
        turn, sent = NextTurn(), []

        async def changing(message) -> None:
            message["body"] = b"changed"

        chunk = b"1"
        Chunks(turn, changing, chunk)
        Chunks(turn, recorder(sent), chunk)
        await some_turns()
        assert sent == [b"1"]

    run(test)
