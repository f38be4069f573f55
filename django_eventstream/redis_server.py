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
    from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url
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

        Raises `IncompatibleSettings` if it has none of them, or something else than a URL or a
        dict, and `RedisPackageIsNotAvailable` for a URL.
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


def _checked(name: str, given: object) -> Mapping[str, Any]:
    if isinstance(given, str):
        return _options_of_url(name, given)
    if not isinstance(given, Mapping):
        raise IncompatibleSettings(
            f"{PREFIX}{name} must be a URL or a dict of options of redis.Redis(), such as "
            f"{REDIS_EXAMPLE}, not {given!r:.100}"
        )
    return given


def _options_of_url(name: str, url: str) -> Mapping[str, Any]:
    if redis is None:
        raise RedisPackageIsNotAvailable(
            f"{PREFIX}{name} needs the package redis: pip install redis"
        )
    try:
        options: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call]
    except ValueError:
        # Neither the URL nor what is wrong with it is told: there may be a password in it.
        raise IncompatibleSettings(
            f"{PREFIX}{name} is not a URL of a Redis: it begins with redis://, rediss:// or "
            'unix://, as "redis://user:password@127.0.0.1:6379/0" does, and other characters than '
            "letters, digits and -._~ are percent-encoded in the password"
        ) from None
    kind = options.pop("connection_class", None)
    if kind is UnixDomainSocketConnection:
        options["unix_socket_path"] = options.pop("path", "")
    elif kind is SSLConnection:
        options["ssl"] = True
    return options
