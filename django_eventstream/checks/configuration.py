"""Checks of the `EVENTSTREAM_` settings, and of the server. They ask nobody."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from django.core.checks import CheckMessage, register
from django.core.management import get_commands
from django.utils.module_loading import import_string

from django_eventstream.backends import has_channel_layer, has_grip_proxies, has_redis
from django_eventstream.channelmanager import ChannelManagerBase
from django_eventstream.checks.messages import TAG, error, is_command, warning, wrong_value
from django_eventstream.conf import PREFIX, Settings, given_names, other_setting, settings
from django_eventstream.storage.base import Storage
from django_eventstream.storage.legacy import is_legacy

NUMBERS = {
    "CHANNEL_LIMIT": (int, False),
    "RETENTION_SECONDS": (float, True),
    "RETENTION_COUNT": (int, True),
    "KEEP_ALIVE_SECONDS": (float, False),
    "POLL_SECONDS": (float, False),
    "WINDOW_BYTES": (int, False),
    "TOTAL_WINDOW_BYTES": (int, False),
    "BACKLOG_BYTES": (int, False),
    "REQUEST_LIMIT": (int, False),
    "RECOVERY_SECONDS": (int, False),
    "PUBLISH_TIMEOUT": (float, False),
}
"""Setting → whether it is whole, and whether it may be None."""

LIKENESS = 0.8
"""Of a name that nobody reads to the one that was meant, of which our prefix is a good part."""

SWITCHES = ("POSTGRES_NOTIFY", "ALLOW_CREDENTIALS")


MEMORY_LAYER = "channels.layers.InMemoryChannelLayer"

DJANGOS_RUNSERVERS = ("django.core", "django.contrib.staticfiles")
"""Apps whose `runserver` is not one of ASGI; daphne has its own."""


@register(TAG)
def check_names(**kwargs: Any) -> Iterator[CheckMessage]:
    """W001: a name that nobody reads."""
    known = [PREFIX + name for name in vars(Settings) if name.isupper()]
    by_letters = {name.replace("_", ""): name for name in known}
    for given in sorted(set(given_names()).difference(known)):
        letters = given.replace("_", "").removeprefix("DJANGO")
        close = get_close_matches(letters, by_letters, 1, LIKENESS)
        text = f"{given} is not a setting of django_eventstream."
        hint = f"Did you mean {by_letters[close[0]]}?" if close else "See the settings reference."
        yield warning("eventstream.W001", text, hint)


@register(TAG)
def check_numbers(**kwargs: Any) -> Iterator[CheckMessage]:
    """E003: something else than a positive number."""
    for name, (kind, may_be_none) in NUMBERS.items():
        value = getattr(settings, name)
        if value is None and may_be_none:
            continue
        if not _is_positive(value, kind):
            wanted = "a whole number above 0" if kind is int else "a number above 0"
            wanted += " or None" if may_be_none else ""
            yield wrong_value("eventstream.E003", name, f"must be {wanted}", value)


@register(TAG)
def check_switches(**kwargs: Any) -> Iterator[CheckMessage]:
    """E004: something else than True or False."""
    for name in SWITCHES:
        value = getattr(settings, name)
        if not isinstance(value, bool):
            yield wrong_value("eventstream.E004", name, "must be True or False", value)


@register(TAG)
def check_classes(**kwargs: Any) -> Iterator[CheckMessage]:
    """E005, E006: a class that cannot be used."""
    if settings.STORAGE_CLASS is not None:
        yield from _check_class("eventstream.E005", "STORAGE_CLASS", Storage)
    yield from _check_class("eventstream.E006", "CHANNELMANAGER_CLASS", ChannelManagerBase)


@register(TAG)
def check_origins(**kwargs: Any) -> Iterator[CheckMessage]:
    """E007, W008, W009, W010: CORS settings that do not do what they seem to."""
    names = ("ALLOW_ORIGIN", "ALLOW_ORIGINS", "ALLOW_HEADERS")
    wrong = [name for name in names if not _is_text_or_texts(getattr(settings, name))]
    for name in wrong:
        rule = "must be a string, a list of strings, or None"
        yield wrong_value("eventstream.E007", name, rule, getattr(settings, name))
    if wrong:
        return
    if settings.ALLOW_ORIGIN and settings.ALLOW_ORIGINS:
        yield warning(
            "eventstream.W008",
            f"{PREFIX}ALLOW_ORIGINS is ignored, because {PREFIX}ALLOW_ORIGIN is set as well.",
            "Keep one of the two.",
        )
    origins = _as_list(settings.ALLOW_ORIGIN or settings.ALLOW_ORIGINS)
    for origin in origins:
        if not _is_origin(origin):
            yield warning(
                "eventstream.W009",
                f"{origin!r} is not an origin, so no page has it.",
                "An origin is scheme://host or scheme://host:port, without a path or slash.",
            )
    if "*" in origins and settings.ALLOW_CREDENTIALS:
        yield warning(
            "eventstream.W010",
            "Every site may read the streams of a visitor who is logged in.",
            f"Name the origins instead of '*', or turn {PREFIX}ALLOW_CREDENTIALS off.",
        )


@register(TAG)
def check_channel_layer(**kwargs: Any) -> Iterator[CheckMessage]:
    """E011, W012, E013: a channel layer that will not be there."""
    name = settings.CHANNEL_LAYER
    layers = other_setting("CHANNEL_LAYERS") or {}
    if name is not None and not isinstance(name, str):
        yield wrong_value("eventstream.E011", "CHANNEL_LAYER", "must be a string or None", name)
    elif name is not None and name not in layers and f"{PREFIX}CHANNEL_LAYER" in given_names():
        yield warning(
            "eventstream.W012",
            f"{PREFIX}CHANNEL_LAYER is {name!r}, which CHANNEL_LAYERS does not have.",
            "Add it to CHANNEL_LAYERS, or set it to None if none is wanted.",
        )
    elif name in layers and find_spec("channels") is None:
        yield error(
            "eventstream.E013",
            "CHANNEL_LAYERS is set, but the package channels is not installed.",
            f"Install channels, or set {PREFIX}CHANNEL_LAYER to None.",
        )


@register(TAG)
def check_server(**kwargs: Any) -> Iterator[CheckMessage]:
    """W014: streams that nobody will hold."""
    is_wsgi = other_setting("WSGI_APPLICATION") and not other_setting("ASGI_APPLICATION")
    if is_wsgi and not has_grip_proxies():
        yield warning(
            "eventstream.W014",
            "Under WSGI, which includes `runserver` as it is set up now, event streams answer 501.",
            "Run the project under ASGI, and say so with ASGI_APPLICATION (for `runserver`, put "
            "'daphne' first in INSTALLED_APPS as well); or set GRIP_URL to a proxy.",
        )
    elif _is_djangos_runserver() and not has_grip_proxies():
        yield warning(
            "eventstream.W108",
            "This `runserver` is Django's own, which runs WSGI whatever ASGI_APPLICATION says: "
            "event streams answer 501.",
            "Install daphne and put 'daphne' first in INSTALLED_APPS, or run an ASGI server such "
            "as `uvicorn --reload`.",
        )


@register(TAG, deploy=True)
def check_layer_in_memory(**kwargs: Any) -> Iterator[CheckMessage]:
    """W109: a channel layer that leads to no other process."""
    if not has_channel_layer() or has_redis():
        return
    layer = other_setting("CHANNEL_LAYERS")[settings.CHANNEL_LAYER]
    if isinstance(layer, Mapping) and layer.get("BACKEND") == MEMORY_LAYER:
        yield warning(
            "eventstream.W109",
            f"CHANNEL_LAYERS[{settings.CHANNEL_LAYER!r}] is in the memory of each process: it "
            "tells no other one of events, and what is not stored never gets there.",
            f"Use a layer of a server, such as channels_redis, or set {PREFIX}REDIS; or set "
            f"{PREFIX}CHANNEL_LAYER to None if the database is to tell.",
        )


def _is_djangos_runserver() -> bool:
    # What runs the checks is the command itself, in the process that its reloader begins as well.
    return is_command("runserver", "runserver_ngrok") and (
        get_commands().get("runserver") in DJANGOS_RUNSERVERS
    )


def _check_class(check: str, name: str, base: type) -> Iterator[CheckMessage]:
    path = getattr(settings, name)
    if not isinstance(path, str):
        yield wrong_value(check, name, "must be the dotted path of a class", path)
        return
    problem = _problem_of_class(path, base)
    if problem and not (base is Storage and _is_legacy(path)):
        home = base.__module__.removesuffix(".base")
        hint = f"Name a subclass of {home}.{base.__qualname__}, or leave the setting out."
        yield error(check, f"{PREFIX}{name} = {path!r}: {problem}.", hint)


def _problem_of_class(path: str, base: type) -> str | None:
    try:
        found = import_string(path)
    except ImportError as problem:
        return f"it cannot be imported: {problem}"
    if not inspect.isclass(found) or not issubclass(found, base):
        return f"it is not a subclass of {base.__qualname__}"
    if inspect.isabstract(found):
        return f"it has no {'(), '.join(sorted(_abstract_methods(found)))}()"
    return None


def _is_legacy(path: str) -> bool:
    try:
        found = import_string(path)
    except ImportError:
        return False
    return inspect.isclass(found) and not issubclass(found, Storage) and is_legacy(found)


def _abstract_methods(found: type) -> frozenset[str]:
    return getattr(found, "__abstractmethods__", frozenset())


def _is_positive(value: object, kind: type) -> bool:
    kinds = (int,) if kind is int else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[arg-type,operator]


def _is_text_or_texts(value: object) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(isinstance(item, str) for item in value)
    return value is None or isinstance(value, str)


def _as_list(value: str | Iterable[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _is_origin(text: str) -> bool:
    if text in ("*", "null"):
        return True
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme and parts.netloc) and text == f"{parts.scheme}://{parts.netloc}"
