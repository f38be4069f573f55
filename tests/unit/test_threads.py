"""Calls in a thread in which no request has left anything behind."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from django_eventstream.deadlines import NoThreadError
from django_eventstream.threads import in_thread
from tests.services.deadline import HEALTHY


def test_a_call_that_is_overdue_is_told_from_one_that_says_so_itself():
    """An error of the function was replaced by one that named a time which had not passed."""
    over = threading.Event()
    try:
        with pytest.raises(TimeoutError, match="no answer within 0.05 s"):
            in_thread(lambda: over.wait(HEALTHY), seconds=0.05)
    finally:
        over.set()

    def fail() -> None:
        raise TimeoutError("connect timed out")

    with pytest.raises(TimeoutError, match="connect timed out"):
        in_thread(fail)


def test_a_system_without_threads_is_said_so(monkeypatch):
    def no_more(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    with pytest.raises(NoThreadError, match="can't start"):
        in_thread(list)


def test_what_a_call_out_of_a_greenlet_raises_is_raised_and_not_printed():
    """gevent wrote a traceback for each event that was sent while the broker was down."""
    code = """
from gevent import monkey
monkey.patch_all()
from django_eventstream.threads import native_thread
with native_thread() as call:
    print(call(lambda: 1))
    try:
        call(lambda: 1 / 0)
    except ZeroDivisionError as error:
        print(error)
"""
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=HEALTHY)
    assert (done.stdout, done.stderr) == ("1\ndivision by zero\n", "")
