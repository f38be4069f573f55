"""The log and the publishers of a process: made once, whoever asks at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from django.test.utils import override_settings

from django_eventstream.backends import get_storage
from django_eventstream.storage.memory import MemoryStorage
from tests.services.deadline import HEALTHY

together = threading.Barrier(2)


class SlowlyMade(MemoryStorage):
    """Two threads are in the middle of making it."""

    def __init__(self) -> None:
        together.wait(HEALTHY)
        super().__init__()


def test_threads_that_ask_for_the_log_at_once_get_the_same():
    """Each got one of its own: what one of them sent first was in a log that nobody read."""
    with (
        override_settings(EVENTSTREAM_STORAGE_CLASS=f"{__name__}.SlowlyMade"),
        ThreadPoolExecutor(2) as pool,
    ):
        first, second = (pool.submit(get_storage) for _ in range(2))
        assert first.result() is second.result() is get_storage()
