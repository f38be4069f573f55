"""The wheel has everything that is not Python, and nothing that is not the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE", "django_eventstream"]
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing of a former build gets in."""
    directory = tmp_path_factory.mktemp("source")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, directory / part)
        elif (ROOT / part).exists():
            shutil.copy(ROOT / part, directory)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(directory)],
        cwd=directory,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with ZipFile(directory / done.stdout.splitlines()[-1]) as file:
        yield file


def test_the_wheel_has_every_file_of_the_package(wheel):
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "django_eventstream").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert there <= set(wheel.namelist())


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        "migrations/0001_initial.py",
        "migrations/0002_outbox.py",
        "management/commands/eventstream_trim.py",
        "templates/admin/django_eventstream/name_filter.html",
        "templates/django_eventstream/browsable-api-eventstream.html",
        "static/django_eventstream/css/admin.css",
        # The paths of 5.3.4: `{% static %}` with a manifest fails if one is missing.
        "static/django_eventstream/reconnecting-eventsource.js",
        "static/django_eventstream/reconnecting-eventsource.mjs",
        "static/django_eventstream/eventsource.min.js",
        "static/django_eventstream/json2.js",
        "static/django_eventstream/ReconnectingEventSource.min.js.map",
        "static/django_eventstream/js/browsable-api-eventstream.js",
        "static/django_eventstream/css/browsable-api-eventstream.css",
    ],
)
def test_the_wheel_has(wheel, name):
    assert f"django_eventstream/{name}" in wheel.namelist()


def test_the_wheel_has_nothing_else(wheel):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"django_eventstream"}


def test_the_metadata_say_what_is_needed(wheel):
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Name"] == "django-reliable-eventstream"
    assert metadata["Requires-Python"] == ">=3.10"
    assert {"drf", "redis", "postgres", "dev", "docs"} <= set(metadata.get_all("Provides-Extra"))
