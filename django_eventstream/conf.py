"""Settings: typed defaults, read through to Django at each access under `EVENTSTREAM_`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from django.conf import settings as django_settings

PREFIX = "EVENTSTREAM_"

CHECK_TAG = "eventstream"
"""`manage.py check --tag eventstream` runs these checks alone."""

REDIS_EXAMPLE = '"redis://127.0.0.1:6379/0"'
"""What REDIS and STORAGE_CONNECTION look like."""


class Settings:
    """Each attribute is a setting without its prefix; its value here is the default."""

    STORAGE_CLASS: str | None = "django_eventstream.storage.DjangoModelStorage"
    """Where events are kept; None keeps none, so that nothing is reliable."""

    CHANNELMANAGER_CLASS: str = "django_eventstream.channelmanager.DefaultChannelManager"
    """Which channels a request names, who may read them, which are reliable."""

    CHANNEL_LIMIT: int = 10
    """Most channels that one stream may have."""

    RETENTION_SECONDS: float | None = 24 * 60 * 60
    """How long an event is kept; None for ever."""

    RETENTION_COUNT: int | None = None
    """How many of its last events a channel keeps; None for any number."""

    KEEP_ALIVE_SECONDS: float = 20
    """Time between two keep-alives of a stream."""

    POLL_SECONDS: float = 0.5
    """Time between two questions of a process to the log: what is new on the channels I hold?"""

    WINDOW_BYTES: int = 1024 * 1024
    """Recent events of one channel that a process keeps in memory for those who fell behind."""

    TOTAL_WINDOW_BYTES: int = 64 * 1024 * 1024
    """Recent events of all channels together that a process keeps in memory."""

    BACKLOG_BYTES: int = 64 * 1024
    """Most bytes that are prepared for one connection at once."""

    REQUEST_LIMIT: int = 20
    """Most requests for streams that ask Django at once, in one process behind the ASGI wrapper."""

    CHANNEL_LAYER: str | None = "default"
    """The channel layer to other processes; unused where CHANNEL_LAYERS does not have it."""

    REDIS: str | Mapping[str, Any] | None = None
    """URL, or options of `redis.Redis()`: processes tell each other of events through it."""

    STORAGE_CONNECTION: str | Mapping[str, Any] | None = None
    """The same, for `RedisStorage`; without it that one uses the server in REDIS."""

    REDIS_PREFIX: str = "eventstream"
    """What names in Redis begin with: another one for each project that shares a server."""

    POSTGRES_NOTIFY: bool = True
    """Wake other processes by NOTIFY. Turn off behind a pooler that cannot LISTEN."""

    RECOVERY_SECONDS: int = 1800
    """Mean time after which an idle connection behind a GRIP proxy is asked for again."""

    PUBLISH_TIMEOUT: float = 3
    """Seconds that a GRIP proxy or broker may take to accept a hint."""

    ALLOW_ORIGIN: str | Sequence[str] | None = None
    ALLOW_ORIGINS: str | Sequence[str] | None = None
    """Origins of other sites that may read streams (CORS); the first one set wins."""

    ALLOW_CREDENTIALS: bool = False
    """Whether those sites may send cookies."""

    ALLOW_HEADERS: str | Sequence[str] | None = None
    """Request headers that those sites may send, besides Last-Event-ID and Cache-Control."""

    def __getattribute__(self, name: str) -> Any:
        if name.isupper():
            return getattr(django_settings, PREFIX + name, getattr(Settings, name))
        return super().__getattribute__(name)


settings = Settings()


def given_names() -> list[str]:
    """Return the names of all settings that are meant for us, known or not.

    That is, those with our prefix, however it is cut up or written: `EVENT_STREAM_…`.
    """
    return [name for name in dir(django_settings) if _is_meant_for_us(name)]


def _is_meant_for_us(name: str) -> bool:
    if name.startswith(PREFIX):
        return True
    letters = name.replace("_", "").removeprefix("DJANGO")
    word = PREFIX.rstrip("_")
    return name.isupper() and bool(get_close_matches(letters[: len(word)], [word], 1, 0.85))


def other_setting(name: str) -> Any:
    """Return a setting of Django or of another package; None where the project has none."""
    return getattr(django_settings, name, None)
