"""The public names: all are there, all are documented, and none needs settings to be imported."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import django_eventstream
from django_eventstream import exceptions

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = (ROOT / "docs/reference/api.md").read_text()
NAMES = [name for name in django_eventstream.__all__ if not name.startswith("_")]

IMPORT_WITHOUT_SETTINGS = """
import sys
import django_eventstream, django_eventstream.storage
assert django_eventstream.__version__
assert "django" not in sys.modules
from django_eventstream import Event, EventPermissionError
assert "django" not in sys.modules
from django_eventstream import send_event
from django.conf import settings
assert not settings.configured
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_can_be_imported_and_says_what_it_does(name):
    found = getattr(django_eventstream, name)
    assert inspect.getdoc(found)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_in_the_reference(name):
    assert re.search(rf"\b{name}\b", REFERENCE)


def test_the_reference_has_no_name_that_is_not_there():
    documented = re.findall(r":: (django_eventstream[\w.]+)", REFERENCE)
    assert len(documented) > 10
    for path in documented:
        module, _, name = path.rpartition(".")
        __import__(module)
        assert hasattr(sys.modules[module], name), path


def test_every_exception_is_in_the_reference():
    for name, found in vars(exceptions).items():
        if inspect.isclass(found) and issubclass(found, exceptions.EventStreamError):
            assert f"exceptions.{name}" in REFERENCE


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        django_eventstream.nothing  # noqa: B018


def test_the_package_can_be_imported_before_there_are_settings():
    subprocess.run([sys.executable, "-c", IMPORT_WITHOUT_SETTINGS], cwd=ROOT, check=True)


def test_async_twins_take_the_same_arguments():
    for name in NAMES:
        if name.startswith("a") and name[1:] in NAMES:
            twin = inspect.signature(getattr(django_eventstream, name).__wrapped__)
            assert twin == inspect.signature(getattr(django_eventstream, name[1:]))
