"""How drf-spectacular, where a project has it, describes the streams of view sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_eventstream import sse

try:
    from drf_spectacular.types import OpenApiTypes
    from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
except ModuleNotFoundError:
    has_spectacular = False
else:
    has_spectacular = True

STREAM = "Server-sent events (WHATWG HTML §9.2), for as long as the client stays."
CHANNELS = "Names joined by commas, where neither the view set nor the URL names channels."
CURSOR = "The id of the last event that the client has: the stream goes on behind it."

View = Callable[..., Any]


def describe_stream(view: View) -> View:
    """Describe an action that answers with a stream; DRF's own schemas do without."""
    if not has_spectacular:
        return view
    describe: Callable[[View], View] = extend_schema(
        parameters=[
            OpenApiParameter("channels", str, description=CHANNELS),
            OpenApiParameter("lastEventId", str, description=CURSOR),
            OpenApiParameter("Last-Event-ID", str, OpenApiParameter.HEADER, description=CURSOR),
        ],
        responses={(200, sse.CONTENT_TYPE): OpenApiResponse(OpenApiTypes.STR, STREAM)},
    )
    return describe(view)
