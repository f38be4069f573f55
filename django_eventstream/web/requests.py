"""What a client asks for: all reading of headers, query and URL."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.db import DatabaseError, InterfaceError, connections
from django.db.models import Model
from django.http import Http404, HttpRequest
from django.utils.http import escape_leading_slashes

from django_eventstream.backends import get_channel_manager, is_reliable
from django_eventstream.channelmanager import ChannelManagerBase, authorize
from django_eventstream.conf import settings
from django_eventstream.control import user_key
from django_eventstream.cursors import ERROR_CURSOR, Cursor
from django_eventstream.events import CONTROL_CHANNEL, validate_channel
from django_eventstream.exceptions import (
    BadRequestError,
    EventPermissionError,
    EventStreamError,
    IncompatibleSettings,
    SessionEndedError,
    StorageUnavailableError,
)
from django_eventstream.hold import Hold
from django_eventstream.logs import require_home

DJANGOS_ANSWERS = (PermissionDenied, Http404, SuspiciousOperation, BadRequest)
"""By these a project, or Django itself, has the answer be status 403, 404 or 400, and the client
stays away."""

PATH_CHARACTERS = "/:@!$&'()*+,;="
"""What stands in a path as it is, besides letters, digits and `-._~` (RFC 3986 §3.3)."""


def parse_hold(request: HttpRequest, view_kwargs: Mapping[str, Any]) -> Hold:
    """Decide what stream the request gets.

    Raises `BadRequestError`, `SessionEndedError`, `EventPermissionError`,
    `StorageUnavailableError` where the database fails under the channel manager, and
    `EventStreamError` where the channel manager itself fails. See also `named_channels()`.
    """
    cursor = parse_cursor(request)
    authorized_at = time.monotonic()
    user = current_user(request)
    names = named_channels(request, view_kwargs, settings.CHANNEL_LIMIT)
    return make_hold(names, cursor, user, authorized_at)


def make_hold(names: Iterable[str], cursor: Cursor | None, user: Any, authorized_at: float) -> Hold:
    """Authorise the user for the channels, and make the hold. See `parse_hold()`."""
    _require_home()
    channels = sorted(names)
    _authorize(user, channels)
    stored = {name: calling_manager(is_reliable, name) for name in channels}
    return Hold(
        reliable=tuple(name for name in channels if stored[name]),
        unreliable=tuple(name for name in channels if not stored[name]),
        cursor=None if cursor is None else cursor.only(channels),
        user_id=calling_manager(user_key, user),
        authorized_at=authorized_at,
        authorize=partial(_authorize_again, user, channels, _schema_of(user)),
        ticket_seconds=calling_manager(_ticket_seconds, user, channels),
    )


def _require_home() -> None:
    """Refuse streams of a log that they are not served from; its own log would be another's."""
    try:
        require_home()
    except IncompatibleSettings as error:
        raise EventStreamError("Internal error") from error


def parse_cursor(request: HttpRequest) -> Cursor | None:
    """Read the position: the `Last-Event-ID` header, else the last `lastEventId` that says one.

    Raises `SessionEndedError` for the id of a `stream-error`.
    """
    text = request.headers.get("Last-Event-ID", "")
    if not text:
        given = [value for value in request.GET.getlist("lastEventId") if value]
        text = given[-1] if given else ""
    if text == ERROR_CURSOR:
        raise SessionEndedError("Invalid request: Can't resume session after stream-error.")
    return Cursor.parse(text) if text else None


def written_path(request: HttpRequest) -> str:
    """Return the path that was asked for as a URI has it, on this site.

    The server has decoded what the client wrote. Two slashes at the beginning would name a host.
    """
    return escape_leading_slashes(quote(request.path, safe=PATH_CHARACTERS))


def current_user(request: HttpRequest) -> Any:
    """Return the logged-in user, or None; works without the authentication middleware."""
    user = getattr(request, "user", None)
    return user if user is not None and calling_manager(_is_authenticated, user) else None


def find_user(user_id: str | None, channels: Iterable[str]) -> Any:
    """Return the user with this key, or None for None; raises `EventPermissionError` if gone."""
    if user_id is None:
        return None
    user = calling_manager(get_channel_manager().get_user, user_id)
    if user is None:
        raise EventPermissionError.for_channels(channels)
    return user


def authorize_again(user_id: str | None, channels: Iterable[str]) -> None:
    """Ask the channel manager once more, for a stream whose request is long gone."""
    _authorize(find_user(user_id, channels), channels)


def named_channels(request: HttpRequest, view_kwargs: Mapping[str, Any], limit: int) -> list[str]:
    """Return the channels that a client asks for, without doubles.

    Raises `BadRequestError` if there are none, too many, or one that no channel can be called;
    `EventPermissionError` for the log's own; and Django's `PermissionDenied` and `Http404` if the
    channel manager does.
    """
    find = get_channel_manager().get_channels_for_request
    found = calling_manager(find, request, view_kwargs, passing=DJANGOS_ANSWERS)
    names = {found} if isinstance(found, str) else set(found)
    if not names:
        raise BadRequestError("No channels specified")
    if len(names) > limit:
        raise BadRequestError("Channel limit exceeded")
    if CONTROL_CHANNEL in names:
        raise EventPermissionError.for_channels([CONTROL_CHANNEL])
    for name in names:
        try:
            validate_channel(name)
        except (TypeError, ValueError) as error:
            raise BadRequestError(f"Invalid channel: {error}") from error
    return list(names)


def calling_manager(
    function: Any, *arguments: Any, passing: tuple[type[Exception], ...] = ()
) -> Any:
    """Call code of the project; whatever it raises becomes an error that a client may see.

    The client is told no more than that something failed; the log has the traceback. What is
    `passing` is raised as it is.
    """
    try:
        return function(*arguments)
    except EventStreamError:
        raise
    except passing:
        raise
    except (DatabaseError, InterfaceError) as error:
        raise StorageUnavailableError(
            f"the database failed under the channel manager: {error}"
        ) from error
    except Exception as error:
        raise EventStreamError("Internal error") from error


def _is_authenticated(user: Any) -> bool:
    return bool(user.is_authenticated)


def _ticket_seconds(user: Any, channels: Sequence[str]) -> int:
    if _schema_of(user) is not None:
        # A ticket has the primary key alone, which is somebody else's in another schema.
        return 0
    return int(get_channel_manager().get_ticket_seconds(user, channels))


def _authorize(user: Any, channels: Iterable[str]) -> None:
    manager: ChannelManagerBase = get_channel_manager()
    calling_manager(authorize, manager, user, channels)


def _schema_of(user: Any) -> str | None:
    """Return the schema that the user was read from, where django-tenants chooses one."""
    if not isinstance(user, Model) or user._state.db is None:
        return None
    return getattr(connections[user._state.db], "schema_name", None)


def _authorize_again(user: Any, channels: Iterable[str], schema: str | None) -> None:
    if not isinstance(user, Model):
        _authorize(user, channels)
        return
    alias = user._state.db
    with _in_schema(alias, schema):
        # Django's backends keep the permissions of a user on the object that was asked first.
        users = user._meta.model._base_manager.using(alias)
        user = calling_manager(users.filter(pk=user.pk).first)
        if user is None:
            raise EventPermissionError.for_channels(channels)
        _authorize(user, channels)


@contextmanager
def _in_schema(alias: str | None, schema: str | None) -> Iterator[None]:
    """Look where the request did: elsewhere somebody else may have the primary key.

    This thread has no request. Whoever is asked for next in it is of another tenant.
    """
    if alias is None or schema is None:
        yield
        return
    connection: Any = connections[alias]
    before = connection.schema_name
    connection.set_schema(schema)
    try:
        yield
    finally:
        connection.set_schema(before)
