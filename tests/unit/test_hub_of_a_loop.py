"""The hubs of a process, by event loop: none outlives its loop, none is taken along by a fork."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import contextmanager

import pytest

from django_eventstream.hub import current
from django_eventstream.hub.hub import Hub
from django_eventstream.hub.shutdown import drain_on_signals

# Python 3.12 and later: threads beside a fork are what some of these are about.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


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


@contextmanager
def lock_held_elsewhere(get):
    """Another thread holds this lock meanwhile."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with get():
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    yield
    release.set()
    thread.join()


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


def test_a_child_that_inherits_the_handlers_ends_at_once(handlers):
    """It has no streams to end, and yet started a thread and lived on for half a second."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asyncio.run(hub_of_this_loop())
    child = os.fork()
    if child == 0:
        signal.raise_signal(signal.SIGTERM)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


def test_a_child_whose_parent_was_telling_its_hubs_can_do_so_itself(handlers):
    """The lock that another thread held was held in the child for ever."""
    with lock_held_elsewhere(lambda: current._lock):
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            current.tell_hubs(Hub.drain)
            os._exit(0)
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
