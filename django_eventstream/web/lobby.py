"""Where requests for streams wait for a place in the plain lane, before anything else sees them.

Django's ASGI handler gives each request a thread, and a thread that looks at its user has a
database connection: three hundred clients who came back at once had as many. The handler waits for
the receivers of `request_started` before it calls any middleware, and so does a request here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, finalize

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.signals import request_finished, request_started
from django.http import HttpRequest

from django_eventstream.conf import settings
from django_eventstream.hold import EXTENSION
from django_eventstream.processes import after_fork
from django_eventstream.web.asking import Routes, Scope, asks_for_stream
from django_eventstream.web.releasing import release_request
from django_eventstream.web.turnstile import Place, Turnstile

T = TypeVar("T")

SENT_AWAY = "django_eventstream.sent_away"
"""Key of the ASGI scope of a request for which there was no place in time."""


class Lobby:
    """Lets as many requests for streams in at once as the wrapper does."""

    def __init__(self) -> None:
        self._routes = Routes()
        self._begin()
        after_fork(self._begin)

    def _begin(self) -> None:
        self._turnstile: Turnstile | None = None
        self._threads: _Shared | None = None
        self._lock = threading.Lock()
        self._places: WeakKeyDictionary[ThreadSensitiveContext, Place] = WeakKeyDictionary()
        """By what asgiref keeps the thread of a request under."""

    def open(self) -> None:
        """Take part in all requests of Django's ASGI handler from now on."""
        request_started.connect(self.wait, sender=ASGIHandler)
        request_finished.connect(self.finish, sender=ASGIHandler)

    def close(self) -> None:
        """Take part in none any more."""
        request_started.disconnect(self.wait, sender=ASGIHandler)
        request_finished.disconnect(self.finish, sender=ASGIHandler)

    async def wait(self, *, scope: Scope, **kwargs: Any) -> None:
        """Keep a request for a stream until it has a place; receiver of `request_started`."""
        context = SyncToAsync.thread_sensitive_context.get(None)
        if context is None or context in self._places or not self._concerns(scope):
            return
        if self._turnstile is None:
            self._turnstile = Turnstile(settings.REQUEST_LIMIT)
        place = self._turnstile.enter_now()
        if place is None:
            place = await self._wait_without_thread(context, self._turnstile)
        if place is None:
            scope[SENT_AWAY] = True
            return
        self._places[context] = place
        # Where a request ends in a fault, Django does not say that it is finished, but asgiref ends
        # its thread, unless somebody gave asgiref the thread: then its context goes in the end.
        if getattr(context, "_executor", None) is None:
            _Thread.wrap(context, place)
        finalize(context, place.leave_threadsafe).atexit = False

    def finish(self, **kwargs: Any) -> None:
        """Leave the place of the current request, from any thread."""
        context = SyncToAsync.thread_sensitive_context.get(None)
        place = None if context is None else self._places.pop(context, None)
        if place is not None:
            place.leave_threadsafe()

    def learn(self, request: HttpRequest) -> None:
        """Remember that the view of this request answers with a stream."""
        if request.resolver_match is not None:
            self._routes.of(request.resolver_match.func).learn(True)

    async def _wait_without_thread(
        self, context: ThreadSensitiveContext, turnstile: Turnstile
    ) -> Place | None:
        """Wait for a place; the sync receivers of `request_started` share a few threads meanwhile.

        Django begins with them after the async ones, in the thread of the request, which there is
        none of yet. Django 6.1 begins with them, so that the request has one: it is let go of.
        """
        await release_request()
        with self._lock:
            if self._threads is None:
                self._threads = _Shared(settings.REQUEST_LIMIT, "eventstream-waiting")
            threads = self._threads
            threads.users += 1
        SyncToAsync.context_to_thread_executor.setdefault(context, threads)
        try:
            return await turnstile.enter()
        finally:
            if SyncToAsync.context_to_thread_executor.get(context) is threads:
                del SyncToAsync.context_to_thread_executor[context]
            with self._lock:
                threads.users -= 1
                if not threads.users:
                    self._threads = None
                    threads.end()

    def _concerns(self, scope: Scope) -> bool:
        """Say whether it is a request for a stream that no wrapper has let in already."""
        is_wrapped = EXTENSION in (scope.get("extensions") or {})
        return not is_wrapped and asks_for_stream(scope) and bool(self._routes.find(scope).is_ours)


class _Thread(Executor):
    """The thread that asgiref keeps for a request; whoever ends it leaves the request's place."""

    def __init__(self, executor: Executor, place: Place) -> None:
        self._executor = executor
        self._place = place

    @classmethod
    def wrap(cls, context: ThreadSensitiveContext, place: Place) -> None:
        """Let a place be left with the thread of a request, which it may not have yet."""
        threads = SyncToAsync.context_to_thread_executor
        executor = threads.get(context) or ThreadPoolExecutor(max_workers=1)
        threads[context] = cls(executor, place)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._place.leave_threadsafe()
        self._executor.shutdown(wait=wait, cancel_futures=cancel_futures)


class _Shared(ThreadPoolExecutor):
    """Threads that a request does not take with it when it ends while it waits."""

    users = 0

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing, when asgiref ends what one of the requests had."""

    def end(self) -> None:
        """End the threads when they have done what they were asked for; does not wait."""
        super().shutdown(wait=False)


lobby = Lobby()


def is_sent_away(request: HttpRequest) -> bool:
    """Say whether a request has waited in vain, and is not to touch the database."""
    return isinstance(request, ASGIRequest) and SENT_AWAY in request.scope
