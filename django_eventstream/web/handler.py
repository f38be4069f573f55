"""Django's handler for requests for streams: each is answered in one thread, as under WSGI.

Django's own ASGI handler starts a thread for each request, and goes there and back twice for each
middleware: three quarters of what a client costs that comes back together with a thousand others.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import IO, Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.db import close_old_connections
from django.http import HttpResponseBase
from django.urls import set_script_prefix

from django_eventstream.processes import after_fork
from django_eventstream.web.asking import Scope
from django_eventstream.web.streams import EventStreamResponse


class OneThreadHandler(ASGIHandler):
    """All middleware and the view of a request run in one of `threads` threads.

    It is for what is sync, or may be. Async code can leave something to be done in a thread when
    the request has ended, and this thread waits for it only until then.
    """

    def __init__(self, threads: int) -> None:
        self._has_async = False
        super().__init__()
        self._threads = threads
        self._begin()
        after_fork(self._begin)

    def _begin(self) -> None:
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="eventstream-request")
        self._respond_in_thread = sync_to_async(
            self._respond, thread_sensitive=False, executor=pool
        )
        self._close_in_thread = sync_to_async(
            HttpResponseBase.close, thread_sensitive=False, executor=pool
        )

    def load_middleware(self, is_async: bool = False) -> None:
        """Load it as under WSGI, whatever the handler is made for."""
        super().load_middleware(is_async=False)

    def adapt_method_mode(self, is_async: bool, method: Any, *args: Any, **options: Any) -> Any:
        """See Django's; it says what middleware is async and nothing else."""
        adapted = super().adapt_method_mode(is_async, method, *args, **options)
        self._has_async = self._has_async or adapted is not method
        return adapted

    def may_answer(self, view: object) -> bool:
        """Say whether neither the middleware nor this view needs an event loop."""
        return not (self._has_async or iscoroutinefunction(view))

    async def handle(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer one request; see `ASGIHandler.handle()`."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        with closing(body):
            response = await self._respond_in_thread(scope, body)
            if response.closed:
                await self.send_response(response, send)
            else:
                await self._stream(response, receive, send)
                await self._close_in_thread(response)

    async def _stream(self, response: HttpResponseBase, receive: Any, send: Any) -> None:
        """Send what middleware or another view streams, until the client leaves."""
        sending = asyncio.ensure_future(self.send_response(response, send))
        leaving = asyncio.ensure_future(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.wait({sending, leaving})
        for task in (leaving, sending):
            if not task.cancelled() and not isinstance(task.exception(), RequestAborted):
                task.result()

    def _respond(self, scope: Scope, body: IO[bytes]) -> HttpResponseBase:
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=self.__class__, scope=scope)
        request, refusal = self.create_request(scope, body)
        response: Any = refusal if request is None else self.get_response(request)
        response._handler_class = self.__class__
        if not response.streaming or _is_handed_over(response):
            response.close()
        else:
            # As the plain lane does it: what is streamed for long keeps no database connection.
            close_old_connections()
        return response  # type: ignore[no-any-return]


def _is_handed_over(response: HttpResponseBase) -> bool:
    return isinstance(response, EventStreamResponse) and response.is_handed_over
