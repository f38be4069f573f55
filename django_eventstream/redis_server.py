"""The Redis of the settings, and clients of it, which are made when they are first needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django_eventstream.conf import PREFIX, REDIS_EXAMPLE, settings
from django_eventstream.exceptions import IncompatibleSettings, RedisPackageIsNotAvailable

try:
    import redis
    import redis.asyncio as async_redis
    from redis import exceptions
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError:
    redis = None  # type: ignore[assignment]
    REDIS_ERRORS: tuple[type[Exception], ...] = ()
    CONNECTION_ERRORS: tuple[type[Exception], ...] = ()
    UNKNOWN_SCRIPT_ERRORS: tuple[type[Exception], ...] = ()
    REFUSALS: tuple[type[Exception], ...] = ()
    ANSWERED_ERRORS: tuple[type[Exception], ...] = ()
else:
    REDIS_ERRORS = (exceptions.RedisError, OSError)
    # Those that end by themselves: Redis is away, or starting, or not the primary just now.
    CONNECTION_ERRORS = (
        exceptions.ConnectionError,
        exceptions.TimeoutError,
        exceptions.ReadOnlyError,
        OSError,
    )
    UNKNOWN_SCRIPT_ERRORS = (exceptions.NoScriptError,)
    ANSWERED_ERRORS = (exceptions.ResponseError,)
    # Redis did nothing and said so.
    REFUSALS = (
        exceptions.AuthenticationError,
        exceptions.AuthorizationError,
        exceptions.BusyLoadingError,
        exceptions.ReadOnlyError,
        exceptions.ResponseError,
    )


@dataclass(frozen=True, slots=True)
class RedisServer:
    """Where a Redis is, and how what is ours is named in it."""

    setting: str
    """Whose value `options` is, for messages; without the prefix of our settings."""

    options: Mapping[str, Any]
    """As `redis.Redis()` takes them."""

    prefix: str
    """What the names of all keys and channels begin with."""

    timeout: float
    """Seconds that Redis may take for each step, unless the options say something else."""

    @classmethod
    def from_settings(cls, *names: str) -> RedisServer:
        """Take the first of these settings that the project has.

        Raises `IncompatibleSettings` if it has none of them, or something else than a dict.
        """
        for name in names:
            options = getattr(settings, name)
            if options is not None:
                return cls(
                    name, _checked(name, options), settings.REDIS_PREFIX, settings.PUBLISH_TIMEOUT
                )
        wanted = " or ".join(PREFIX + name for name in names)
        raise IncompatibleSettings(f"{wanted} must say where Redis is, such as {REDIS_EXAMPLE}")

    @property
    def news_channel(self) -> str:
        """Where processes tell each other of news: all databases of a Redis share its channels."""
        return f"{self.prefix}:news:{self.options.get('db') or 0}"

    def make_client(self) -> redis.Redis:
        """Return a new client, with a pool of its own, for all threads of this process.

        A process that forks may go on using it. Raises `IncompatibleSettings` and
        `RedisPackageIsNotAvailable`; asks nobody.
        """
        client: redis.Redis = self._make(redis)
        return client

    def make_async_client(self) -> async_redis.Redis:
        """Return a new client for one event loop; see `make_client()`."""
        client: async_redis.Redis = self._make(redis and async_redis)
        return client

    def _make(self, package: Any) -> Any:
        if package is None:
            raise RedisPackageIsNotAvailable(
                f"{PREFIX}{self.setting} needs the package redis: pip install redis"
            )
        options = {
            "socket_connect_timeout": self.timeout,
            "socket_timeout": self.timeout,
            "protocol": 2,
            **self.options,
            "decode_responses": True,
            "encoding": "utf-8",
            # One value that somebody else wrote must not fail the whole answer: it has half of a
            # surrogate pair then, which no event may have.
            "encoding_errors": "surrogateescape",
            # It would send again what Redis may have done already.
            "retry": Retry(NoBackoff(), 0),
        }
        try:
            return package.Redis(**options)
        except TypeError as error:
            raise IncompatibleSettings(f"{PREFIX}{self.setting}: {error}") from error


def may_be_done(error: Exception) -> bool:
    """Say whether Redis may have done what ended with this error: only its answer was lost."""
    # redis-py has the same classes for connections that were never made.
    return not isinstance(error, REFUSALS) and " connecting to " not in str(error)


def _checked(name: str, options: object) -> Mapping[str, Any]:
    if not isinstance(options, Mapping):
        raise IncompatibleSettings(
            f"{PREFIX}{name} must be a dict of options of redis.Redis(), such as {REDIS_EXAMPLE},"
            f" not {options!r:.100}"
        )
    return options
