"""Pumps: what one client's `send()` does is no matter of the others."""

from __future__ import annotations

import asyncio

import pytest

from django_eventstream.hub.pump import Pump, PumpRoom


class Chunks:
    """A connection, as a pump sees it."""

    is_ended = False

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)

    def take(self) -> bytes:
        return self.chunks.pop(0) if self.chunks else b""


class Broken(Chunks):
    def take(self) -> bytes:
        raise RuntimeError("take")


def run(test) -> None:
    asyncio.run(test())


def make_pump(room: PumpRoom, send, connection: Chunks) -> Pump:
    pump = Pump(room, send, asyncio.current_task())
    pump.connection = connection
    pump.wake()
    return pump


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
        room, sent = PumpRoom(), []
        bad = make_pump(room, failing, Chunks(b"1"))
        good = make_pump(room, recorder(sent), Chunks(b"1", b"2"))
        assert await bad.ended is error
        assert sent == [b"1", b"2"]
        assert not good.ended.done()

    run(test)


def test_a_connection_that_raises_silences_no_other():
    async def test() -> None:
        room, sent = PumpRoom(), []
        bad = make_pump(room, recorder([]), Broken())
        make_pump(room, recorder(sent), Chunks(b"1"))
        assert str(await bad.ended) == "take"
        assert sent == [b"1"]

    run(test)


def test_a_client_that_does_not_read_waits_alone_and_keeps_its_order():
    async def test() -> None:
        room, slow, quick = PumpRoom(), [], []
        writable = asyncio.Event()

        async def blocking(message) -> None:
            await writable.wait()
            slow.append(message["body"])

        waiting = make_pump(room, blocking, Chunks(b"1", b"2", b"3"))
        make_pump(room, recorder(quick), Chunks(b"1"))
        await some_turns()
        waiting.wake()
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
        pump = make_pump(PumpRoom(), failing_later, Chunks(b"1"))
        assert str(await pump.ended) == "gone"

    run(test)
