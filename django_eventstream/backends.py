"""From settings to instances: made when first needed, dropped when a setting changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from django_eventstream.channelmanager import ChannelManagerBase, Retention
from django_eventstream.conf import PREFIX, other_setting, settings
from django_eventstream.deprecation import warn_deprecated
from django_eventstream.events import CONTROL_CHANNEL
from django_eventstream.feeds.base import Feed
from django_eventstream.publishers.base import Publisher
from django_eventstream.storage.base import Storage
from django_eventstream.storage.legacy import REPLACEMENT, LegacyStorage, is_legacy

LOCAL_PUBLISHER = "django_eventstream.publishers.local.LocalPublisher"
REDIS_PUBLISHER = "django_eventstream.publishers.redis.RedisPublisher"
GRIP_PUBLISHER = "django_eventstream.publishers.grip.GripPublisher"
CHANNELS_PUBLISHER = "django_eventstream.publishers.channels.ChannelsPublisher"

REDIS_FEED = "django_eventstream.feeds.redis.RedisFeed"
CHANNELS_FEED = "django_eventstream.feeds.channels.ChannelsFeed"

CONTROL_RETENTION = Retention(seconds=3_600, count=None)
"""What processes tell each other is of no use once every hub has read it."""

_per_thread = threading.local()

Made = TypeVar("Made")


class _Once(Generic[Made]):
    """A function that is called for its first callers only, and gives all of them the same.

    `lru_cache` gives threads that come at once one each, and keeps the last: what the others
    stored in a log in memory was gone. It has no lock either, so that a fork can do no harm.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._made: dict[None, Made] = {}
        self.__doc__ = make.__doc__

    def __call__(self) -> Made:
        made = self._made
        return made[None] if made else made.setdefault(None, self._make())

    def cache_clear(self) -> None:
        """Let the next caller have a new one."""
        self._made = {}


@_Once
def get_storage() -> Storage | None:
    """Return the log, or None where `EVENTSTREAM_STORAGE_CLASS` is None: nothing is stored."""
    path = settings.STORAGE_CLASS
    if path is None:
        return None
    storage = _make("STORAGE_CLASS", path)
    if isinstance(storage, Storage) or not is_legacy(storage):
        return storage  # type: ignore[no-any-return]
    warn_deprecated(f"The storage class {path!r}", REPLACEMENT)
    return LegacyStorage(storage)


def get_channel_manager() -> ChannelManagerBase:
    """Return this thread's channel manager."""
    path = settings.CHANNELMANAGER_CLASS
    cached: tuple[str, ChannelManagerBase] | None = getattr(_per_thread, "manager", None)
    if cached is None or cached[0] != path:
        cached = _per_thread.manager = (path, _make("CHANNELMANAGER_CLASS", path))
    return cached[1]


@_Once
def get_publishers() -> tuple[Publisher, ...]:
    """Return every way to tell holders of connections, nearest first."""
    paths = [LOCAL_PUBLISHER]
    if has_redis():
        paths.append(REDIS_PUBLISHER)
    elif has_channel_layer():
        paths.append(CHANNELS_PUBLISHER)
    if has_grip_proxies():
        paths.append(GRIP_PUBLISHER)
    return tuple(import_string(path)() for path in paths)


def make_feeds() -> tuple[Feed, ...]:
    """Return new feeds, for one hub, of everything that brings news of other processes."""
    paths = []
    if has_redis():
        paths.append(REDIS_FEED)
    elif has_channel_layer():
        paths.append(CHANNELS_FEED)
    if (own := _feed_of_storage()) is not None:
        paths.append(own)
    return tuple(import_string(path)() for path in dict.fromkeys(paths))


def has_redis() -> bool:
    """Say whether processes tell each other of events through Redis; then no layer is needed."""
    return settings.REDIS is not None or _feed_of_storage() == REDIS_FEED


def has_channel_layer() -> bool:
    """Say whether a channel layer to other processes is configured."""
    layers = other_setting("CHANNEL_LAYERS") or {}
    return settings.CHANNEL_LAYER is not None and settings.CHANNEL_LAYER in layers


def has_grip_proxies() -> bool:
    """Say whether a GRIP proxy is configured, in the settings of django-grip."""
    return bool(other_setting("GRIP_URL") or other_setting("GRIP_PROXIES"))


def get_retention(channel: str) -> Retention:
    """Return how much of a channel is kept, of the log's own one, too."""
    if channel == CONTROL_CHANNEL:
        return CONTROL_RETENTION
    return get_channel_manager().get_retention(channel)


def is_reliable(channel: str) -> bool:
    """Say whether events of the channel are stored."""
    return get_storage() is not None and bool(get_channel_manager().is_channel_reliable(channel))


def _feed_of_storage() -> str | None:
    storage = get_storage()
    return None if storage is None else storage.feed


def _make(name: str, path: str) -> Any:
    try:
        return import_string(path)()
    except (ImportError, TypeError) as error:
        raise ImproperlyConfigured(f"{PREFIX}{name} = {path!r} cannot be used: {error}") from error


@receiver(setting_changed)
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting.startswith((PREFIX, "GRIP_", "CHANNEL_LAYERS", "DATABASES", "DATABASE_ROUTERS")):
        get_storage.cache_clear()
        get_publishers.cache_clear()
