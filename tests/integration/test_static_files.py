"""The files for browsers, by the names that templates of django-eventstream 5.3.4 give them."""

from __future__ import annotations

import json

import pytest
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command

PATHS = [
    "reconnecting-eventsource.js",
    "reconnecting-eventsource.mjs",
    "eventsource.min.js",
    "json2.js",
    "ReconnectingEventSource.min.js.map",
    "js/browsable-api-eventstream.js",
    "css/browsable-api-eventstream.css",
]


@pytest.fixture
def collected(tmp_path, settings):
    settings.STATIC_ROOT = str(tmp_path)
    backend = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": backend}}
    call_command("collectstatic", interactive=False, verbosity=0)
    return tmp_path


def test_all_paths_are_found_by_a_storage_that_fails_for_a_missing_one(collected):
    urls = [staticfiles_storage.url(f"django_eventstream/{path}") for path in PATHS]
    assert len(set(urls)) == len(PATHS)
    for url in urls:
        assert (collected / url.removeprefix("/static/")).read_text().strip()


def test_files_that_nothing_needs_any_more_say_so(collected):
    directory = collected / "django_eventstream"
    for path in ("eventsource.min.js", "json2.js"):
        assert (directory / path).read_text().startswith("// Empty: ")
    source_map = json.loads((directory / "ReconnectingEventSource.min.js.map").read_text())
    assert source_map["version"] == 3
    assert source_map["mappings"] == ""
