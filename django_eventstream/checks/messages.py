"""The messages of checks, and who asks for them."""

from __future__ import annotations

import sys

from django.core import checks

from django_eventstream.conf import CHECK_TAG, PREFIX

TAG = CHECK_TAG


def is_command(*names: str) -> bool:
    """Say whether one of these commands of `manage.py` asks for the checks."""
    return sys.argv[1:2] != [] and sys.argv[1] in names


def error(id: str, text: str, hint: str) -> checks.CheckMessage:  # noqa: A002
    """Report what cannot work."""
    return checks.Error(text, hint=hint, id=id)


def warning(id: str, text: str, hint: str) -> checks.CheckMessage:  # noqa: A002
    """Report what works otherwise than it seems."""
    return checks.Warning(text, hint=hint, id=id)


def wrong_value(id: str, name: str, rule: str, value: object) -> checks.CheckMessage:  # noqa: A002
    """Report a setting of ours that has an impossible value."""
    text = f"{PREFIX}{name} {rule}, not {value!r}."
    return error(id, text, "Correct it, or leave it out.")
