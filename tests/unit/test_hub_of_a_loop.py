"""The hubs of a process, by event loop: none outlives its loop, none is taken along by a fork."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from django_eventstream.hub import current
from django_eventstream.hub.hub import Hub
from django_eventstream.hub.shutdown import drain_on_signals


@pytest.fixture
def handlers():
    """What handles signals, put back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


async def hub_of_this_loop() -> Hub:
    assert current.get_hub() is current.get_hub()
    return current.get_hub()


def test_loops_that_ended_leave_one_hub_and_one_signal_handler(handlers):
    asyncio.run(hub_of_this_loop())
    handler = signal.getsignal(signal.SIGTERM)
    threads = threading.active_count()
    for _ in range(5):
        asyncio.run(hub_of_this_loop())
    assert len(current._hubs) == 1
    assert threading.active_count() <= threads
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_child_has_no_hubs_of_its_parent(handlers):
    asyncio.run(hub_of_this_loop())
    assert current._hubs
    child = os.fork()
    if child == 0:
        os._exit(len(current._hubs))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_handler_that_is_set_later_is_called_after_the_streams_were_told(handlers):
    told = []
    drain_on_signals(lambda: told.append("first"))
    signal.signal(signal.SIGTERM, lambda number, frame: told.append("the project's"))
    drain_on_signals(lambda: told.append("drained"))
    drain_on_signals(lambda: told.append("again"))
    signal.raise_signal(signal.SIGTERM)
    assert told == ["drained", "the project's"]


def test_a_signal_in_the_middle_of_telling_hubs_does_not_stop_the_process(handlers):
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    drain_on_signals(lambda: current.tell_hubs(Hub.drain))
    with current._lock:
        signal.raise_signal(signal.SIGTERM)
