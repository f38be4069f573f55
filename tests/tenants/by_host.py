"""A database for each host, chosen by what a middleware leaves in the thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

_chosen = threading.local()


class ByHostRouter:
    """Answers `alpha` for requests to `localhost`, and `default` everywhere else."""

    def db_for_read(self, model: object, **hints: object) -> str:
        return getattr(_chosen, "alias", "default")

    db_for_write = db_for_read


class ByHostMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        _chosen.alias = "alpha" if request.get_host().startswith("localhost") else "default"
        return self._get_response(request)
