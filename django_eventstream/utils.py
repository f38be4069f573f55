"""The helpers of django-eventstream 5, for code that imports them.

The one module of this name, against the house rule: the path is what makes it useful. Nothing here
has logic of its own, and each function warns with what to use instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any
from urllib.parse import quote

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.module_loading import import_string

from django_eventstream import backends, grip, sse
from django_eventstream.channelmanager import ChannelManagerBase
from django_eventstream.conf import other_setting, settings
from django_eventstream.cursors import ERROR_CURSOR, Cursor, format_cursor
from django_eventstream.deprecation import deprecated
from django_eventstream.payloads import encode_payload
from django_eventstream.storage.legacy import LegacyStorage
from django_eventstream.web import cors
from django_eventstream.web.responses import CACHE_CONTROL, finish_headers

Headers = HttpResponseBase | MutableMapping[str, str]

_per_thread = threading.local()

VIEW = "the views of django_eventstream do it"
IMPORT = "use django.utils.module_loading.import_string()"


@deprecated(VIEW)
def sse_encode_event(
    event_type: str,
    data: Any,
    event_id: str | None = None,
    escape: bool = False,
    json_encode: bool = False,
) -> str:
    """Write an event: type, id and data, in this order, with a line for the type in any case.

    `escape` doubles each percent sign of type and data, for a GRIP proxy's filter.
    """
    text = encode_payload(data) if json_encode else str(data)
    return _encode(str(event_type), text, event_id, grip.escape if escape else bytes)


@deprecated(VIEW)
def sse_encode_error(condition: str, text: str, extra: Mapping[str, Any] | None = None) -> str:
    """Write a `stream-error`."""
    return _encode_error(condition, text, extra)


@deprecated(VIEW)
def sse_error_response(
    condition: str, text: str, extra: Mapping[str, Any] | None = None
) -> HttpResponse:
    """Answer with a `stream-error`."""
    response = HttpResponse(_encode_error(condition, text, extra), content_type=sse.CONTENT_TYPE)
    response["Cache-Control"] = CACHE_CONTROL
    return response


@deprecated("use django_eventstream.get_current_event_id()")
def make_id(ids: Mapping[str, int | str]) -> str:
    """Write a cursor."""
    return format_cursor((name, int(last_id)) for name, last_id in ids.items())


@deprecated("use EventRequest(request).channel_last_ids")
def parse_last_event_id(s: str) -> dict[str, str]:
    """Read a cursor: quoted name → last id, both as text. Raises ValueError."""
    cursor = Cursor.parse(s)
    if not cursor.is_readable:
        raise ValueError(f"not a cursor: {s!r:.100}")
    return {quote(name): str(last_id) for name, last_id in cursor.positions.items()}


@deprecated(VIEW)
def build_id_escape(s: str) -> str:
    """Escape what passes the filter of a GRIP proxy that writes ids."""
    return grip.escape(s.encode()).decode()


@deprecated("use send_event() and get_events()")
def get_storage() -> Any:
    """Return the storage, of the class that the setting names; None without one."""
    storage = backends.get_storage()
    return storage.backend if isinstance(storage, LegacyStorage) else storage


@deprecated("use django_eventstream.backends.get_channel_manager()")
def get_channelmanager() -> ChannelManagerBase:
    """Return this thread's channel manager."""
    return backends.get_channel_manager()


@deprecated(IMPORT)
def load_class(name: str) -> Any:
    """Return an instance of the class with this path."""
    return import_string(name)()


@deprecated(IMPORT)
def get_class(name: str) -> Any:
    """Return this thread's instance of the class with this path."""
    return _instance(name)


@deprecated(IMPORT)
def get_class_from_setting(setting_name: str, default: str | None = None) -> Any:
    """Return this thread's instance of the class whose path is a setting; None without one."""
    path = other_setting(setting_name) or default
    return _instance(path) if path else None


@deprecated(VIEW)
def add_default_headers(headers: Headers, request: HttpRequest) -> None:
    """Set the headers of a stream, on a response or on a dictionary."""
    if isinstance(headers, HttpResponseBase):
        finish_headers(request, headers)
    else:
        _copy_headers(finish_headers(request, HttpResponse()), headers)


@deprecated("the Origin of the request is compared, by the views of django_eventstream")
def find_related_origin(request: HttpRequest, cors_origins: Sequence[str]) -> str:
    """Return which of the origins the page of the request has; empty text for none of them."""
    return cors.allowed_origin(request.headers.get("Origin", ""), cors_origins) or ""


@deprecated(VIEW)
def get_cors_from_settings() -> str | Sequence[str]:
    """Return the origins as they are set; raises TypeError if they are set wrongly."""
    cors.allowed_origins()
    return settings.ALLOW_ORIGIN or settings.ALLOW_ORIGINS or ""


@deprecated(VIEW)
def augment_cors_headers(headers: Headers, request: HttpRequest) -> None:
    """Set the headers for pages of other sites, on a response or on a dictionary."""
    if isinstance(headers, HttpResponseBase):
        cors.add_cors_headers(request, headers)
        return
    response = HttpResponse()
    cors.add_cors_headers(request, response)
    _copy_headers(response, headers)


def _instance(path: str) -> Any:
    instances = vars(_per_thread)
    if path not in instances:
        instances[path] = import_string(path)()
    return instances[path]


def _encode(
    event_type: str, text: str, event_id: object, escape: Callable[[bytes], bytes] = bytes
) -> str:
    body = escape(sse.encode_body(event_type, text)).decode()
    if event_type == "message":
        # Our own streams leave this type out.
        body = f"event: message\n{body}"
    first, _, lines = body.partition("\n")
    id_line = sse.encode_id(str(event_id)).decode()[:-1] if event_id else ""
    return f"{first}\n{id_line}{lines}\n"


def _encode_error(condition: str, text: str, extra: Mapping[str, Any] | None) -> str:
    data = encode_payload({"condition": condition, "text": text, **(extra or {})})
    return _encode("stream-error", data, ERROR_CURSOR)


def _copy_headers(response: HttpResponseBase, headers: MutableMapping[str, str]) -> None:
    headers.update({name: value for name, value in response.items() if name != "Content-Type"})
