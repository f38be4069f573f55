"""Streams as a view set of Django REST framework: its rules about who may ask, and our streams.

The framework authenticates, checks permissions, throttles, and finds out what the client accepts.
The stream itself is that of the plain view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import classonlymethod

from django_eventstream import sse
from django_eventstream.backends import get_channel_manager
from django_eventstream.exceptions import EventStreamError
from django_eventstream.models import Event
from django_eventstream.openapi import describe_stream
from django_eventstream.renderers import (
    NAMING_IN_URL,
    BrowsableAPIEventStreamRenderer,
    SSEEventRenderer,
)
from django_eventstream.views import events
from django_eventstream.web.asking import answers_with_streams, never_atomic
from django_eventstream.web.cors import add_cors_headers, is_preflight
from django_eventstream.web.proxy import is_recovery
from django_eventstream.web.requests import calling_manager
from django_eventstream.web.responses import catching_refusals, keep_out_of_caches

try:
    from rest_framework.decorators import action
    from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer
    from rest_framework.request import Request
    from rest_framework.response import Response
    from rest_framework.settings import api_settings
    from rest_framework.viewsets import ViewSet
except ModuleNotFoundError as error:
    raise ImportError(
        f"{__name__} needs Django REST framework: pip install djangorestframework"
    ) from error

# Whoever accepts anything gets the first one.
RENDERERS = (SSEEventRenderer, BrowsableAPIEventStreamRenderer)


class EventsViewSet(ViewSet):  # type: ignore[misc]
    """A stream of events, as they are sent. A browser that asks for a page is shown this one."""

    channels: Sequence[str] = ()
    """The channels of the stream; none to let the URL or the query name them."""

    messages_types: Sequence[str] = ()
    """The types of events that the page shows; none to let the query name them. A stream has all
    types: which ones its client listens for is for the client to say."""

    http_method_names: Sequence[str] = ["get", "head", "options"]
    renderer_classes: Sequence[type[BaseRenderer]] = RENDERERS
    # Never evaluated: it tells routers a name, and model permissions the model.
    queryset = Event.objects.none()

    def __init__(
        self,
        channels: Sequence[str] | None = None,
        messages_types: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if channels is not None:
            self.channels = channels
        if messages_types is not None:
            self.messages_types = messages_types
        # An instance can be registered like a class, and keeps what it was made with.
        self.__dict__["as_view"] = partial(
            type(self).as_view, channels=self.channels, messages_types=self.messages_types
        )

    @classonlymethod
    def as_view(
        cls, actions: Mapping[str, str] | None = None, **initkwargs: Any
    ) -> Callable[..., HttpResponseBase]:
        """Return the view; without `actions` it answers to GET. See `ViewSetMixin.as_view()`."""
        view: Callable[..., HttpResponseBase] = super().as_view(
            dict(actions or {"get": "list"}), **initkwargs
        )
        return view

    # `as_view()` hands on what marks it.
    @never_atomic
    @answers_with_streams
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer a request. A proxy's question, and a browser's, come without credentials."""
        response = catching_refusals(self._dispatch, request, *args, **kwargs)
        return keep_out_of_caches(request, response)

    def _dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if is_recovery(request) or is_preflight(request):
            return events(request)
        response: HttpResponseBase = super().dispatch(request, *args, **kwargs)
        return response

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse a method before anybody is asked for credentials, or for a token against CSRF."""
        if request.method not in self.allowed_methods:
            self.http_method_not_allowed(request, *args, **kwargs)
        super().initial(request, *args, **kwargs)

    @describe_stream
    def list(self, request: Request, **kwargs: Any) -> HttpResponseBase:
        """Stream the channels of the class, or those that the query names."""
        return self._answer(request, kwargs)

    @describe_stream
    @action(detail=False, url_path="(?P<channel>[^/]+)")  # type: ignore[untyped-decorator]
    def channel(self, request: Request, **kwargs: Any) -> HttpResponseBase:
        """Stream the channel that the URL names."""
        return self._answer(request, kwargs)

    def get_renderers(self) -> Sequence[BaseRenderer]:
        """Return ours, unless the view set names others; the page only where pages are wanted."""
        if self.renderer_classes is not RENDERERS:
            return [renderer() for renderer in self.renderer_classes]
        return [renderer() for renderer in _renderers_of_project()]

    def finalize_response(
        self, request: Request, response: HttpResponseBase, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        """Let pages of other sites read errors as well; see `APIView.finalize_response()`."""
        final: HttpResponseBase = super().finalize_response(request, response, *args, **kwargs)
        if isinstance(final, Response):
            add_cors_headers(request, final)
        return final

    def _answer(self, request: Request, url_kwargs: Mapping[str, Any]) -> HttpResponseBase:
        own, queried = _names(self.channels), _queried(request, "channels")
        own_types, queried_types = _names(self.messages_types), _queried(request, "messages_types")
        in_url = any(name in url_kwargs for name in NAMING_IN_URL)
        conflict = _conflict(
            "channels", {"view set": own, "URL": in_url, "query": queried}
        ) or _conflict("messages_types", {"view set": own_types, "query": queried_types})
        if conflict:
            return _respond({"error": conflict}, status=400)
        named = own or queried
        kwargs = {**url_kwargs, "channels": named} if named else dict(url_kwargs)
        if request.accepted_renderer.media_type == sse.CONTENT_TYPE:
            return events(request, **kwargs)
        channels = _channels_of(request, kwargs)
        types = own_types or queried_types or ["message"]
        return _respond({"channels": channels, "messages_types": types})


def configure_events_view_set(
    channels: Sequence[str] | None = None, messages_types: Sequence[str] | None = None
) -> type[EventsViewSet]:
    """Return an `EventsViewSet` with these channels, and these types on its page."""

    class ConfiguredEventsViewSet(EventsViewSet):
        __doc__ = EventsViewSet.__doc__

    if channels is not None:
        ConfiguredEventsViewSet.channels = _names(channels)
    if messages_types is not None:
        ConfiguredEventsViewSet.messages_types = _names(messages_types)
    return ConfiguredEventsViewSet


def _respond(data: Mapping[str, object], status: int = 200) -> HttpResponseBase:
    response: HttpResponseBase = Response(data, status)
    return response


def _renderers_of_project() -> list[type[BaseRenderer]]:
    """Return ours as the project's default renderers want them.

    A project that lists ours gets exactly those. Otherwise the page is there where the project
    has browsable pages at all.
    """
    defaults = api_settings.DEFAULT_RENDERER_CLASSES
    pages = [each for each in defaults if issubclass(each, BrowsableAPIEventStreamRenderer)]
    streams = [each for each in defaults if issubclass(each, SSEEventRenderer)]
    is_browsable = any(issubclass(each, BrowsableAPIRenderer) for each in defaults)
    if not pages and not streams and is_browsable:
        pages = [BrowsableAPIEventStreamRenderer]
    return [*(streams or [SSEEventRenderer]), *pages]


def _names(given: Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _queried(request: Request, parameter: str) -> list[str]:
    """Return what the query says in lists joined by commas."""
    text = ",".join(request.query_params.getlist(parameter))
    return [name for part in text.split(",") if (name := part.strip())]


def _conflict(what: str, ways: Mapping[str, object]) -> str:
    used = [f"the {way}" for way, names in ways.items() if names]
    return f"Conflicting {what}: {' and '.join(used)} name them." if len(used) > 1 else ""


def _channels_of(request: Request, kwargs: Mapping[str, Any]) -> list[str]:
    """Return the channels that a stream would have. What is wrong with them, the stream says."""
    try:
        asked = get_channel_manager().get_channels_for_request
        return sorted(calling_manager(asked, request, kwargs))
    except EventStreamError:
        return []
