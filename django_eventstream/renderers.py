"""Renderers of Django REST framework: for streams, and for the page that shows one in a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.urls import NoReverseMatch, reverse

from django_eventstream import sse
from django_eventstream.web.requests import written_path

try:
    from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
    from rest_framework.settings import api_settings
except ModuleNotFoundError as error:
    raise ImportError(
        f"{__name__} needs Django REST framework: pip install djangorestframework"
    ) from error


NAMING_IN_URL = ("channel", "channels", "format-channels")
"""Keywords of URL patterns that name channels; see `DefaultChannelManager`."""


class SSEEventRenderer(BaseRenderer):  # type: ignore[misc]
    """Lets a view be asked for `text/event-stream`.

    A stream is a response of Django's, which no renderer sees. What gets here is an error, or
    metadata: it is encoded as JSON, and says so. Text and bytes are passed on as they are.
    """

    media_type = sse.CONTENT_TYPE
    format = sse.CONTENT_TYPE
    charset = "utf-8"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """See `BaseRenderer.render()`."""
        if isinstance(data, str):
            return data.encode(self.charset)
        if isinstance(data, bytes):
            return data
        response = (renderer_context or {}).get("response")
        # A page shows what this renderer makes of its data, and has a type of its own.
        if response is not None and response.accepted_renderer is self:
            response["Content-Type"] = JSONRenderer.media_type
        encoded: bytes = JSONRenderer().render(data, JSONRenderer.media_type, renderer_context)
        return encoded


class BrowsableAPIEventStreamRenderer(BrowsableAPIRenderer):  # type: ignore[misc]
    """A page of the browsable API on which the events of a stream appear as they come.

    The view's data are a dict of two lists, `channels` and `messages_types`.
    """

    format = "api_sse"
    template = "django_eventstream/browsable-api-eventstream.html"

    def get_context(
        self, data: Any, accepted_media_type: str, renderer_context: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what the template shows.

        `stream` is None for an error, which is in `error`, and for what OPTIONS answers.
        """
        context: dict[str, Any] = super().get_context(data, accepted_media_type, renderer_context)
        said = data if isinstance(data, Mapping) else {}
        channels, types = said.get("channels", []), said.get("messages_types", [])
        return {
            **context,
            # For what is not there; it would be a style sheet within the page.
            "code_style": "",
            "channels": ", ".join(channels),
            "messages_types": ", ".join(types),
            "error": said.get("error") or said.get("detail"),
            "stream": _stream(renderer_context, types) if "channels" in said else None,
        }


def _stream(renderer_context: Mapping[str, Any], types: Sequence[str]) -> dict[str, Any]:
    view, request = renderer_context["view"], renderer_context["request"]
    query = request.query_params.copy()
    # This page was asked for by it; an EventSource says by itself what it accepts.
    query.pop(api_settings.URL_FORMAT_OVERRIDE, None)
    path = _path(view, request)
    return {
        "path": path,
        "url": f"{path}?{query.urlencode()}".removesuffix("?"),
        "types": types,
        # What the visitor may change by asking again.
        "may_choose_channels": not _is_named(view),
        "may_choose_types": not getattr(view, "messages_types", ()),
        "asked_channels": ",".join(query.getlist("channels")),
        "asked_types": ",".join(query.getlist("messages_types")),
        "other_parameters": [
            (name, value)
            for name, values in query.lists()
            if name not in ("channels", "messages_types")
            for value in values
        ],
    }


def _is_named(view: Any) -> bool:
    """Say whether the view set or the URL names the channels."""
    return bool(getattr(view, "channels", ())) or any(name in view.kwargs for name in NAMING_IN_URL)


def _path(view: Any, request: Any) -> str:
    """Return the path of the request without a suffix that asks for this page."""
    if view.format_kwarg is not None:
        match = request.resolver_match
        kwargs = dict(match.captured_kwargs)
        kwargs.pop(view.settings.FORMAT_SUFFIX_KWARG, None)
        try:
            return reverse(match.view_name, args=match.args, kwargs=kwargs)
        except NoReverseMatch:
            pass
    return written_path(request)
