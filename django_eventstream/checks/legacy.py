"""Checks of what a project brings along from django-eventstream 5."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, register
from django.utils.module_loading import import_string

from django_eventstream.checks.messages import TAG, warning
from django_eventstream.conf import PREFIX, settings
from django_eventstream.storage.base import Storage
from django_eventstream.storage.legacy import METHODS, LegacyMethods, is_legacy


@register(TAG)
def check_legacy_storage(**kwargs: Any) -> Iterator[CheckMessage]:
    """W022, W023: a storage class of the old kind, or one that is half of it."""
    try:
        found = import_string(settings.STORAGE_CLASS or "")
    except (ImportError, AttributeError, TypeError):
        # None, or a mistake that another check tells of.
        return
    if not inspect.isclass(found) or not is_legacy(found):
        return
    name = f"{PREFIX}STORAGE_CLASS = {settings.STORAGE_CLASS!r}"
    if not issubclass(found, Storage):
        yield warning(
            "eventstream.W022",
            f"{name} was written for django-eventstream 5: it keeps no promise about transactions.",
            "It works. See 'Storage classes of your own' in the guide to upgrading for what it "
            "cannot do, and derive from django_eventstream.storage.Storage when you can.",
        )
    elif unused := _overridden(found):
        yield warning(
            "eventstream.W023",
            f"{name} has a {'(), a '.join(unused)}() of its own, which nothing calls any more.",
            "Override append(), read() and get_position() of django_eventstream.storage.Storage.",
        )


def _overridden(found: type) -> list[str]:
    ours = vars(LegacyMethods)
    return [name for name in METHODS if getattr(found, name) is not ours.get(name)]
