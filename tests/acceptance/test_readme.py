"""The README, followed line by line in a new project, with a real browser."""

from __future__ import annotations

import re

import pytest
from selenium.webdriver.common.by import By

from tests.acceptance.test_quickstart import Project, commands, served
from tests.services.deadline import wait_until
from tests.services.python import ROOT

README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(?:python|html)\n(?:#|<!--) ([\w./]+)[^\n]*\n(.*?)^```", re.S | re.M)


@pytest.fixture
def project(tmp_path) -> Project:
    """Each block at the end of the file that it names."""
    project = Project(tmp_path)
    project.python("-m", "django", "startproject", "mysite", ".")
    project.python("manage.py", "startapp", "news")
    for name, block in BLOCK.findall(README):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as opened:
            opened.write(block)
    project.python("manage.py", "makemigrations", "news")
    return project


def test_what_is_published_by_the_form_of_the_readme_appears_in_the_page(project, browser):
    """Its view had no form, and a newcomer's own got a 403 for want of the token."""
    [migrate] = [words for words in commands("python", README) if "migrate" in words]
    [uvicorn] = commands("uvicorn", README)
    project.python(*migrate[1:])
    with served(project, uvicorn) as url:
        browser.driver.get(url)
        publish(browser, "One")
        wait_until(lambda: shown(browser) == ["One"], 30)
        publish(browser, "Two")
        wait_until(lambda: shown(browser) == ["One", "Two"], 30)
        browser.driver.refresh()
        assert shown(browser) == ["One", "Two"]


def publish(browser, title: str) -> None:
    field = browser.driver.find_element(By.NAME, "title")
    field.clear()
    field.send_keys(title)
    browser.driver.find_element(By.TAG_NAME, "button").click()


def shown(browser) -> list[str]:
    items = browser.driver.find_elements(By.CSS_SELECTOR, "#news li")
    return [item.text for item in items]
