"""A client of an ASGI application in the same event loop: no server, no socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.services.deadline import HEALTHY


class Visitor:
    """One request and all that is sent back, until the visitor leaves or the answer is over.

    `hangs_at` is the kind of message that it does not take. One that `is_unfinished` sends but the
    beginning of a body.
    """

    def __init__(
        self,
        path: str = "/events/?channel=a",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        hangs_at: str | None = None,
        is_unfinished: bool = False,
    ) -> None:
        path, _, query = path.partition("?")
        given = {"host": "testserver", "accept": "text/event-stream", **(headers or {})}
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
            "server": ("testserver", 80),
        }
        self.start: dict[str, Any] = {}
        self.body = b""
        self.is_over = False
        self.is_gone = asyncio.Event()
        self.is_reached = asyncio.Event()
        """It hangs, or something of a body has come."""
        self._hangs_at = hangs_at
        self._is_unfinished = is_unfinished
        self._has_asked = False
        self._has_more = asyncio.Event()

    @property
    def status(self) -> int:
        return self.start["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.start["headers"]}

    async def visit(self, application: Callable[..., Awaitable[None]]) -> Visitor:
        """Stays until the application has returned."""
        await application(self.scope, self._receive, self._send)
        return self

    def begin(self, application: Callable[..., Awaitable[None]]) -> asyncio.Task[Visitor]:
        return asyncio.ensure_future(self.visit(application))

    async def wait_for(self, text: bytes) -> None:
        """Waits until the body has this in it."""
        while text not in self.body:
            self._has_more.clear()
            await asyncio.wait_for(self._has_more.wait(), HEALTHY)

    async def _receive(self) -> dict[str, Any]:
        if not self._has_asked:
            self._has_asked = True
            return {"type": "http.request", "body": b"", "more_body": self._is_unfinished}
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == (self._hangs_at or "http.response.body"):
            self.is_reached.set()
        if message["type"] == self._hangs_at:
            await asyncio.get_running_loop().create_future()
        if message["type"] == "http.response.start":
            assert not self.start, "an answer begins once"
            self.start = message
        else:
            assert self.start, "a body has a head"
            assert not self.is_over, "nothing follows the end"
            self.body += message.get("body", b"")
            self.is_over = not message.get("more_body", False)
        self._has_more.set()
