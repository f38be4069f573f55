"""The caller's transactions, on whatever database they are open, and what follows their commit.

This is the one way in which the package waits for a commit. Django's `on_commit()` stops at the
first callback that raises, forgets what was registered within a savepoint only if `atomic()` made
it, and knows of one connection. What is left to a `Step` is done before any other callback, is
taken back by each kind of savepoint, and follows several transactions at once. All that is kept
of it is kept in `connection.run_on_commit`, and so ends with the transaction.
"""

from __future__ import annotations

import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_eventstream.threads import in_thread

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Step(ABC):
    """What is done once every transaction that it follows is committed.

    It is taken back for good by the first of them that is rolled back.
    """

    error: Exception | None = None
    """What went wrong: the commit raises it, when all steps were taken."""

    can_wait = False
    """Whether steps of this class are taken after all others: nothing is lost meanwhile."""

    is_over = False
    """Whether it was taken, or taken back."""

    def __init__(self) -> None:
        self._awaited: set[str] = set()

    @classmethod
    @abstractmethod
    def take(cls, steps: Sequence[Any]) -> None:
        """Do what these steps of one class say, which are due at the same commit.

        A failure of some is noted as their `error`; one that is raised is a failure of all.
        """

    def follow(self, opened: Iterable[BaseDatabaseWrapper]) -> None:
        """Wait for the commit of each of these transactions; for one or more."""
        for connection in opened:
            self._awaited.add(connection.alias)
            first = _first_callback(connection)
            first.steps[self] = None
            savepoints = _Savepoints(self, connection, first)
            _callbacks(connection).append((savepoints, _Turn(self, first), False))

    def is_due_after(self, alias: str) -> bool:
        """Note a commit; say whether it was the last to wait for."""
        self._awaited.discard(alias)
        return not self._awaited and not self.is_over


class _First:
    """The first callback of a transaction's commit: takes all the steps."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.steps: dict[Step, None] = {}

    def __call__(self) -> None:
        _take([step for step in self.steps if step.is_due_after(self.alias)])


class _Turn:
    """The callback in a step's own place: raises what went wrong.

    A `TestCase` commits nothing, and calls the callbacks that were registered in a block of it:
    then the step is taken here.
    """

    def __init__(self, step: Step, first: _First) -> None:
        self._step = step
        self._alias = first.alias

    def __call__(self) -> None:
        if self._step.is_due_after(self._alias):
            _take([self._step])
        if (error := self._step.error) is not None:
            try:
                raise error
            finally:
                # Otherwise the error has a frame that has the error.
                self._step.error = error = None


class _Savepoints(set[str]):
    """The savepoints whose rollback takes a step back: all that were made before it.

    After a rollback to a savepoint Django asks the set of each callback whether that was one of
    its own, and lets go of the callback then. The set that Django itself makes has the savepoints
    of `atomic()` alone. Their names count upwards within a connection: `s<thread>_x<number>`.
    """

    def __init__(self, step: Step, connection: BaseDatabaseWrapper, first: _First) -> None:
        super().__init__(sid for sid in connection.savepoint_ids if sid is not None)
        self._step = step
        self._steps = first.steps
        self._made = connection.savepoint_state

    def __contains__(self, sid: object) -> bool:
        if not super().__contains__(sid) and _number(sid) > self._made:
            return False
        self._step.is_over = True
        self._steps.pop(self._step, None)
        return True


def open_connections() -> list[BaseDatabaseWrapper]:
    """Return the connections of this thread whose transaction an event has to wait for.

    Of those that a `TestCase` holds open only the default one counts, whose callbacks tests
    capture: nothing else ever comes of their commits.
    """
    return [
        connection
        for connection in connections.all(initialized_only=True)
        if tells_of_commit(connection)
        and (connection.alias == DEFAULT_DB_ALIAS or not _is_of_test_case(connection))
    ]


def tells_of_commit(connection: BaseDatabaseWrapper) -> bool:
    """Say whether a transaction is open that ends with a call of its callbacks, or a rollback.

    With AUTOCOMMIT off in the settings Django never calls them.
    """
    can_tell = connection.commit_on_exit or connection.settings_dict["AUTOCOMMIT"]
    return bool(connection.in_atomic_block and can_tell)


def own_thread() -> None:
    """Let this thread, which is ours, commit each statement, whatever AUTOCOMMIT says.

    Its transactions would never end: what it writes would be lost, what it reads grow old.
    """
    for connection in _without_autocommit():
        connection.settings_dict = {**connection.settings_dict, "AUTOCOMMIT": True}


@contextmanager
def owned_thread() -> Iterator[None]:
    """Let this thread be ours for a while, as `own_thread()` does for good."""
    changed = [(connection, connection.settings_dict) for connection in _without_autocommit()]
    own_thread()
    try:
        yield
    finally:
        for connection, before in changed:
            connection.close()
            connection.settings_dict = before


def call_apart(function: Callable[[], Result], seconds: float) -> Result:
    """Call a function in a thread and with connections of its own, and wait for it.

    Raises what it raises, and what `in_thread()` raises.
    """
    return in_thread(partial(_apart, function), seconds)


def _without_autocommit() -> list[BaseDatabaseWrapper]:
    # One that is open already may be in a transaction of somebody else.
    by_hand = [alias for alias in connections if not connections.settings[alias]["AUTOCOMMIT"]]
    return [connections[alias] for alias in by_hand if connections[alias].connection is None]


def _apart(function: Callable[[], Result]) -> Result:
    own_thread()
    try:
        return function()
    finally:
        connections.close_all()


def _take(steps: Iterable[Step]) -> None:
    kinds: dict[type[Step], list[Step]] = {}
    for step in steps:
        step.is_over = True
        kinds.setdefault(type(step), []).append(step)
    for kind, those in sorted(kinds.items(), key=lambda item: item[0].can_wait):
        try:
            kind.take(those)
        except Exception as error:
            # The commit raises it, unless another callback raises before.
            logger.error("What was to follow a commit failed: %s", error)
            for step in those:
                step.error = step.error or error


def _first_callback(connection: BaseDatabaseWrapper) -> _First:
    for _, callback, _ in _callbacks(connection):
        if isinstance(callback, _First):
            return callback
    first = _First(connection.alias)
    if not _is_of_test_case(connection):
        _callbacks(connection).insert(0, (set(), first, False))
    return first


def _callbacks(connection: BaseDatabaseWrapper) -> list[Any]:
    """Return what Django calls after the commit: savepoints, callback, and whether it may fail."""
    return connection.run_on_commit


def _is_of_test_case(connection: BaseDatabaseWrapper) -> bool:
    blocks = connection.atomic_blocks
    return bool(blocks) and getattr(blocks[0], "_from_testcase", False)


def _number(sid: object) -> int:
    number = str(sid).rpartition("_x")[2]
    return int(number) if number.isdecimal() else sys.maxsize
