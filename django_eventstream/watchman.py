"""The thread by which a process takes part in the watch, for as long as it answers or sends.

It runs only where a GRIP proxy holds connections and the log can be watched, begins with a request
or a publish, and ends when there was none for so long that a proxy that holds a connection would
have asked: so while there are connections, a process of the site watches.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import close_old_connections, connections

from django_eventstream import processes
from django_eventstream.backends import get_publishers, get_storage, has_grip_proxies
from django_eventstream.exceptions import PublishError
from django_eventstream.storage.base import Storage
from django_eventstream.transactions import own_thread
from django_eventstream.watch import ABSTAIN_SECONDS, Watch, look_back_seconds

logger = logging.getLogger(__name__)

IDLE_SECONDS = 60.0
"""How much longer than the longest recovery period a process without requests goes on."""

FAILURE_SECONDS = 5.0
"""Until the log is asked again after it could not be."""

STUCK_SECONDS = 60.0
"""After this time a turn is given up: its connection to the database is frozen."""

MOST_STUCK = 3
"""Threads given up at the same time; with so many no other begins."""

EXIT_SECONDS = 2.0
"""How long a process that ends waits for its turn to end."""


class Watchman:
    """One for each process. `stir()` may be called from any thread, and in a signal's receiver."""

    def __init__(self) -> None:
        self.begin_anew()
        processes.after_fork(self.begin_anew)
        # Publishers register later, and so are called later: they post for it.
        processes.before_exit(self.finish)

    def begin_anew(self) -> None:
        """Know of no thread: it stayed in the process that was forked."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_ending = False
        self._thread: threading.Thread | None = None
        self._stirred_at = 0.0
        self._turn_began: float | None = None
        self._stuck: list[threading.Thread] = []

    def stir(self, **kwargs: Any) -> None:
        """Take part in the watch from now on, for a while; costs a caller next to nothing."""
        self._stirred_at = time.monotonic()
        if self._thread is None or self._is_stuck():
            self._start()

    def finish(self, deadline: float) -> None:
        """Let the turn end that is under way, and let go of the lease.

        A process that goes on all the same takes part again when it is stirred.
        """
        self._is_ending = True
        self._wake.set()
        thread = self._thread
        if thread is not None and not self._is_stuck():
            thread.join(min(EXIT_SECONDS, max(0.0, deadline - time.monotonic())))
        self._is_ending = False

    def _start(self) -> None:
        storage = _watchable_storage()
        if storage is None or self._is_ending or not self._lock.acquire(blocking=False):
            return
        try:
            if self._thread is not None and not self._is_stuck():
                return
            self._start_thread(storage)
        except Exception as error:
            # The process is ending, or its settings are wrong: no request and no send fails for it.
            self._thread = None
            logger.debug("This process does not take part in the watch: %s", error)
        finally:
            self._lock.release()

    def _start_thread(self, storage: Storage) -> None:
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if self._thread is not None:
            if len(self._stuck) >= MOST_STUCK:
                return
            logger.warning("The event log has not answered the watch for %d s", STUCK_SECONDS)
            self._stuck.append(self._thread)
        for publisher in get_publishers():
            # Their threads begin now: once a process ends, none does.
            publisher.get_ready()
        processes.expect_exit()
        self._wake.clear()
        self._turn_began = None
        self._thread = threading.Thread(
            target=self._run, args=(storage,), name="eventstream-watch", daemon=True
        )
        self._thread.start()

    def _is_stuck(self) -> bool:
        began = self._turn_began
        return began is not None and time.monotonic() > began + STUCK_SECONDS

    # In the thread

    def _run(self, storage: Storage) -> None:
        thread = threading.current_thread()
        watch = Watch(storage)
        is_reached = True
        try:
            own_thread()
            # The first turn is taken even by a process that ends right after its one request.
            while self._thread is thread:
                pause, is_reached = self._turn(watch, is_reached)
                if self._is_ending or self._wake.wait(pause) or self._is_idle():
                    break
        finally:
            self._let_go(watch)
            with self._lock:
                if self._thread is thread:
                    self._thread = self._turn_began = None

    def _turn(self, watch: Watch, was_reached: bool) -> tuple[float, bool]:
        self._note_turn(time.monotonic())
        try:
            pause, is_reached = watch.turn(), True
            if not was_reached:
                logger.info("The event log can be watched again")
        except PublishError as error:
            pause, is_reached = ABSTAIN_SECONDS, False
            logger.warning("The watch is left to another process: %s", error)
        except Exception as error:  # whatever it is, the next turn may do better
            pause, is_reached = FAILURE_SECONDS, False
            if was_reached:
                logger.warning("The event log cannot be watched now: %s", error)
        if watch.is_holder and is_reached:
            close_old_connections()  # the holder's may stay, if the project's do
        else:
            connections.close_all()
        self._note_turn(None)
        return pause, is_reached

    def _note_turn(self, began: float | None) -> None:
        if self._thread is threading.current_thread():  # else it was given up
            self._turn_began = began

    def _let_go(self, watch: Watch) -> None:
        try:
            watch.release()
        except Exception as error:
            logger.info("The next process waits until the lease of the watch is over: %s", error)
        finally:
            connections.close_all()

    def _is_idle(self) -> bool:
        return time.monotonic() > self._stirred_at + look_back_seconds() + IDLE_SECONDS


def _watchable_storage() -> Storage | None:
    # A connection of ours would keep the test runner from removing its database, and a test's own
    # transaction is none of ours.
    if not has_grip_proxies() or processes.is_under_test():
        return None
    try:
        storage = get_storage()
    except ImproperlyConfigured:  # which is for whoever needs it to say
        return None
    return storage if storage is not None and storage.supports_watch else None


watchman = Watchman()
