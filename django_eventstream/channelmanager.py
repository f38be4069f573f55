"""The channel manager: what a project decides about its channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist, ValidationError
from django.http import HttpRequest

from django_eventstream.conf import settings
from django_eventstream.exceptions import EventPermissionError


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a channel is kept; None is no limit."""

    seconds: float | None
    count: int | None


class ChannelManagerBase:
    """Subclass it, and name the class in `EVENTSTREAM_CHANNELMANAGER_CLASS`.

    Methods are called in a thread and may use the database. One instance serves one thread.
    """

    ticket_version: int | str = 0
    """Part of every ticket: change it with a release that permits less than the one before, and
    no client of that one comes back without being asked. See `get_ticket_seconds()`."""

    def get_channels_for_request(
        self, request: HttpRequest, view_kwargs: Mapping[str, Any]
    ) -> Iterable[str]:
        """Return the channels that the request asks for.

        May raise Django's `PermissionDenied` or `Http404`: a browser that gets such an answer
        does not come back.
        """
        raise NotImplementedError

    def can_read_channel(self, user: Any, channel: str) -> bool:
        """Say whether `user` may read `channel`; `user` is None for somebody not logged in."""
        raise NotImplementedError

    def is_channel_reliable(self, channel: str) -> bool:
        """Say whether events of the channel are stored, numbered and replayed."""
        raise NotImplementedError

    def get_user(self, user_id: str) -> Any:
        """Return the user with this primary key; None if there is none any more.

        Asked for streams that a GRIP proxy holds: its requests bring no cookies. A project
        whose users are not in the database overrides it.
        """
        try:
            user = get_user_model()._default_manager.get(pk=user_id)
        except (ObjectDoesNotExist, ValidationError, ValueError, OverflowError):
            return None
        return user if user.is_active else None

    def get_ticket_seconds(self, user: Any, channels: Sequence[str]) -> int:
        """Say for how long a client that is cut off may come back without being asked; 0 for never.

        It then brings a ticket, and `EventStreamApplication` takes it back without asking
        middleware, view or this class: see the documentation on security for what that risks.
        The seconds are counted from the first ticket on, however often the client comes back by
        another one, and at most 300 of them count. Nobody gets a ticket unless a project's own
        channel manager says so here.
        """
        return 0

    def get_retention(self, channel: str) -> Retention:
        """Say how much of the channel is kept."""
        return Retention(settings.RETENTION_SECONDS, settings.RETENTION_COUNT)


class DefaultChannelManager(ChannelManagerBase):
    """Channels from the URL or the query; everybody may read; everything is reliable."""

    def get_channels_for_request(
        self, request: HttpRequest, view_kwargs: Mapping[str, Any]
    ) -> Iterable[str]:
        """Take `format-channels`, `channels` or `channel` of the URL, else `?channel=` repeated.

        Raises `ImproperlyConfigured` if `format-channels` has a field that the URL does not.
        """
        if "format-channels" in view_kwargs:
            fields = {k: v for k, v in view_kwargs.items() if k != "format-channels"}
            return {_fill(pattern, fields) for pattern in _names(view_kwargs["format-channels"])}
        if "channels" in view_kwargs:
            return set(_names(view_kwargs["channels"]))
        if "channel" in view_kwargs:
            return {view_kwargs["channel"]}
        return set(request.GET.getlist("channel"))

    def can_read_channel(self, user: Any, channel: str) -> bool:
        """Let everybody read everything."""
        return True

    def is_channel_reliable(self, channel: str) -> bool:
        """Store everything."""
        return True


def _names(given: Iterable[str]) -> Iterable[str]:
    # A text has letters, and none of them is meant.
    return [given] if isinstance(given, str) else given


def _fill(pattern: str, fields: Mapping[str, Any]) -> str:
    try:
        return pattern.format(**fields)
    except (IndexError, KeyError) as error:
        known = ", ".join(sorted(fields)) or "no fields"
        raise ImproperlyConfigured(
            f"format-channels: {pattern!r} needs a field {error} that the URL does not have; "
            f"it has {known}"
        ) from error


def authorize(manager: ChannelManagerBase, user: Any, channels: Iterable[str]) -> None:
    """Raise `EventPermissionError` that names every channel that `user` may not read."""
    refused = [name for name in channels if not manager.can_read_channel(user, name)]
    if refused:
        raise EventPermissionError.for_channels(refused)
