"""The recipe for `ChannelsLiveServerTestCase` in the guide to testing, in a new project."""

from __future__ import annotations

from django.core.management import call_command

from tests.acceptance.test_quickstart import Project, file_blocks
from tests.services.python import ROOT

GUIDE = (ROOT / "docs" / "howto" / "testing.md").read_text()
SETTINGS = """
INSTALLED_APPS += ["django_eventstream"]
ASGI_APPLICATION = "mysite.asgi.application"
DATABASES["default"]["TEST"] = {"NAME": BASE_DIR / "test.sqlite3"}
"""
URLS = """
from django.urls import include, path

urlpatterns = [path("events/", include("django_eventstream.urls"))]
"""
# Django empties the database between two tests, and the server goes on.
TWICE = "    test_another_one_gets_it_too = test_a_visitor_gets_the_article\n"


def test_a_stream_of_a_live_server_gets_what_the_test_sends(tmp_path):
    call_command("startproject", "mysite", str(tmp_path))
    with (tmp_path / "mysite" / "settings.py").open("a") as settings:
        settings.write(SETTINGS)
    (tmp_path / "mysite" / "urls.py").write_text(URLS)
    (tmp_path / "news").mkdir()
    (tmp_path / "news" / "__init__.py").touch()
    (tmp_path / "news" / "tests.py").write_text(file_blocks(GUIDE)["news/tests.py"] + TWICE)
    assert "Ran 2 tests" in Project(tmp_path).python("manage.py", "test")
