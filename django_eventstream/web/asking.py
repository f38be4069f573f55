"""Which requests are for streams: these ask Django in turn, and the others are let pass.

And what a view that answers with streams says of itself to Django and to the wrapper.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar

from django.core.handlers.asgi import get_script_prefix
from django.db import transaction
from django.urls import resolve

from django_eventstream import sse

Scope = MutableMapping[str, Any]
View = TypeVar("View", bound=Callable[..., Any])

_ACCEPTED = sse.CONTENT_TYPE.encode()
_MARK = "_answers_with_event_streams"


def answers_with_streams(view: View) -> View:
    """Mark a view; what decorates it by `functools.wraps()` takes the mark over."""
    setattr(view, _MARK, True)
    return view


def is_marked(view: object) -> bool:
    """Say whether `answers_with_streams()` marked a view, which may be any callable."""
    return getattr(view, _MARK, None) is True


class _EveryDatabase(set[str]):
    """Answers Django that a view takes part in no transaction, whatever the alias.

    `non_atomic_requests()` does so for one alias, and which ones there are only the settings know.
    """

    def __contains__(self, alias: object) -> bool:
        return True


def never_atomic(view: View) -> View:
    """Run a view in no transaction, whichever databases have ATOMIC_REQUESTS.

    Nothing of ours writes with the project's data, and a transaction would cost each client that
    comes back a database connection, and SQLite's one write lock.
    """
    marked: Any = transaction.non_atomic_requests(view)
    marked._non_atomic_requests = _EveryDatabase(marked._non_atomic_requests)
    return view


def asks_for_stream(scope: Scope) -> bool:
    """Say whether a client may want a stream, as `EventSource` says it and its replacements do."""
    return scope["method"] == "GET" and any(
        (name == b"accept" and _ACCEPTED in value) or name == b"last-event-id"
        for name, value in scope["headers"]
    )


_Known = dict[int, tuple[object, "bool | None"]]
"""By the identity of the view, as it may be any callable, and need not be hashable."""

_NOTHING: tuple[object, bool | None] = (None, None)

MOST_VIEWS = 10_000
"""Views that are known at once: a project can make new ones for each request."""


class Route:
    """Where a request leads to."""

    def __init__(self, view: Callable[..., Any] | None, known: _Known) -> None:
        self.view = view
        """None if only middleware can tell."""
        self._known = known
        self.is_ours: bool | None = True if is_marked(view) else known.get(id(view), _NOTHING)[1]
        """Whether the view answers with our streams; None until it has been seen to answer, or a
        client left that it had not answered."""

    def learn(self, has_streamed: bool) -> None:
        """Remember what it answered. One that streams may still refuse somebody."""
        if self.view is None:
            return
        if len(self._known) >= MOST_VIEWS:
            del self._known[next(iter(self._known))]
        _, has_ever = self._known.pop(id(self.view), _NOTHING)
        self._known[id(self.view)] = self.view, has_streamed or bool(has_ever)


class Routes:
    """What is known of the project's views."""

    def __init__(self) -> None:
        self._known: _Known = {}

    def find(self, scope: Scope) -> Route:
        """Return the route of a request; an unknown one if only middleware can tell."""
        path = scope["path"].removeprefix(get_script_prefix(scope)) or "/"
        try:
            view = resolve(path if path.startswith("/") else f"/{path}").func
        except Exception:
            # Whatever is wrong with it, Django finds it again and reports it.
            view = None
        return self.of(view)

    def of(self, view: Callable[..., Any] | None) -> Route:
        """Return the route of all requests that lead to this view."""
        return Route(view, self._known)
