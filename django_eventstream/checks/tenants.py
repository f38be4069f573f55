"""Checks of projects whose tenants have schemas of their own. They ask nobody."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.core.checks import CheckMessage, register
from django.utils.module_loading import import_string

from django_eventstream.channelmanager import DefaultChannelManager
from django_eventstream.checks.messages import TAG, error, warning
from django_eventstream.conf import PREFIX, other_setting, settings
from django_eventstream.storage.orm import DjangoModelStorage

APP = "django_eventstream"


@register(TAG)
def check_tenants(**kwargs: Any) -> Iterator[CheckMessage]:
    """E034, W035: a log for each tenant, and channels that tenants share without a word."""
    if not other_setting("TENANT_MODEL"):
        return
    storage, manager = _loaded(settings.STORAGE_CLASS), _loaded(settings.CHANNELMANAGER_CLASS)
    is_in_database = inspect.isclass(storage) and issubclass(storage, DjangoModelStorage)
    if is_in_database and any(_is_ours(app) for app in _apps_of_tenants()):
        yield error(
            "eventstream.E034",
            "Each tenant has an event log of its own, and streams are served from one log for all: "
            "no stream of a tenant opens.",
            f"Move {APP} from TENANT_APPS to SHARED_APPS, and put the tenant into the names of "
            "channels: see docs/howto/tenants.md.",
        )
    if getattr(manager, "get_channels_for_request", None) is (
        DefaultChannelManager.get_channels_for_request
    ):
        yield warning(
            "eventstream.W035",
            "Clients of all tenants name the same channels: one tenant reads what another sends.",
            f"Name a class in {PREFIX}CHANNELMANAGER_CLASS whose get_channels_for_request() puts "
            "the tenant into the names: see docs/howto/tenants.md.",
        )


def _apps_of_tenants() -> Iterable[str]:
    """Return the apps that have tables for each tenant, as django-tenants is told of them."""
    yield from other_setting("TENANT_APPS") or ()
    types = other_setting("TENANT_TYPES")
    if isinstance(types, Mapping):
        public = other_setting("PUBLIC_SCHEMA_NAME") or "public"
        for name, given in types.items():
            if name != public:
                yield from given.get("APPS", ())


def _is_ours(app: str) -> bool:
    return app == APP or app.startswith(f"{APP}.")


def _loaded(path: object) -> Any:
    try:
        return import_string(path) if isinstance(path, str) else None
    except ImportError:
        # Another check explains it.
        return None
