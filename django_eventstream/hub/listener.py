"""Hearing that a client leaves: no task for it, only its ASGI `receive()`, which mostly waits."""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class Listener:
    """Steps `receive()` by hand, as a part of the task that it is made in, until `stop()`."""

    __slots__ = ("_awaited", "_is_gone", "_loop", "_owner", "_receive", "_steps")

    def __init__(self, receive: Receive, is_gone: Callable[[BaseException], None]) -> None:
        """`is_gone` is called once the client has left, or with what `receive()` raised.

        What others put around a server's `receive()` runs in tasks, which are waited for here: see
        `servers`.
        """
        owner = asyncio.current_task()
        assert owner is not None, "ASGI servers run applications in tasks"
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._receive = receive
        self._is_gone: Callable[[BaseException], None] | None = is_gone
        self._steps: Iterator[Any] | None = None
        self._awaited: Any = None
        self._loop.call_soon(self._listen)

    def stop(self) -> asyncio.Task[Message] | None:
        """Listen no more; return a task that is being cancelled, if there is one."""
        self._is_gone = None
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            # What `receive()` waits for is told as by a task that is cancelled.
            awaited.cancel()
        return awaited if isinstance(awaited, asyncio.Task) else None

    def _listen(self, _: object = None) -> None:
        if self._is_gone is None and self._steps is None:
            return
        _enter_task(self._loop, self._owner)
        try:
            self._wait_for(self._step())
        except (Exception, asyncio.CancelledError) as error:
            self._tell(error)
        finally:
            _leave_task(self._loop, self._owner)

    def _step(self) -> Any:
        """Go on until there is something to wait for, and return it."""
        while True:
            if self._steps is None:
                self._steps = iter(self._receive().__await__())
            try:
                return next(self._steps)
            except StopIteration as received:
                self._steps = None
                if received.value["type"] == "http.disconnect":
                    raise ConnectionResetError("the client has left") from None

    def _wait_for(self, awaited: Any) -> None:
        if awaited is None:
            self._loop.call_soon(self._listen)
            return
        # This is how a future is told that it will be waited for; see asyncio.isfuture().
        awaited._asyncio_future_blocking = False
        awaited.add_done_callback(self._listen)
        self._awaited = awaited

    def _tell(self, error: BaseException) -> None:
        self._steps = self._awaited = None
        if self._is_gone is not None:
            self._is_gone(error)
