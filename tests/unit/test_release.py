"""What a stream of the plain lane lets go of before it begins."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async

from django_eventstream.web import releasing
from tests.services.deadline import HEALTHY


@pytest.fixture
def goes_on():
    event = threading.Event()
    yield event
    event.set()


async def release(executor) -> None:
    async with ThreadSensitiveContext() as context:
        SyncToAsync.context_to_thread_executor[context] = executor
        await releasing.release_request()
        assert context not in SyncToAsync.context_to_thread_executor


def test_connections_that_cannot_be_closed_hold_up_no_stream(monkeypatch, caplog, goes_on):
    """A stream waited for ever, without a byte, for the connections of its request."""
    monkeypatch.setattr(releasing, "RELEASE_SECONDS", 0.05)
    executor = ThreadPoolExecutor(1)
    executor.submit(goes_on.wait, 20)
    asyncio.run(asyncio.wait_for(release(executor), HEALTHY))
    assert "before the database connections" in caplog.text


def test_a_system_without_threads_refuses_no_stream_for_closing_connections(monkeypatch):
    """`RuntimeError: can't start new thread`, though there was no connection to be closed."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            await release(ThreadPoolExecutor(1))

    asyncio.run(main())


@pytest.mark.skipif(
    "executor" not in inspect.signature(ThreadSensitiveContext).parameters,
    reason="this asgiref takes nobody's executor",
)
def test_an_executor_that_somebody_gave_is_left_to_them():
    """It was shut down: whoever had given it could call nothing in it any more."""

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            async with ThreadSensitiveContext(executor=executor):
                thread = await sync_to_async(threading.get_ident)()
                await releasing.release_request()
                assert await sync_to_async(threading.get_ident)() == thread

    asyncio.run(asyncio.wait_for(main(), HEALTHY))
