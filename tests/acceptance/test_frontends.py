"""The pages of the guide to front ends, as they stand, in a real browser."""

from __future__ import annotations

import re

import pytest
from django.conf import settings
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import transaction
from django.template import Context, Template

from django_eventstream import send_event
from tests.services.deadline import wait_until
from tests.services.gateway import gateway_without_server
from tests.services.npm import installed
from tests.services.python import ROOT

GUIDE = (ROOT / "docs" / "howto" / "frontends.md").read_text()
FILE = r"^```{}\n{} (templates|static)/(\S+)[^\n]*\n(.*?)^```"
CLIENTS = ["htmx4", "htmx2", "turbo", "fetch"]
IN_FRAME = """
    const [name, script] = arguments;
    const { contentWindow } = document.querySelector(`iframe[name=${name}]`);
    return new Function("window", "document", script)(contentWindow, contentWindow.document);
"""
FRAMES = """
    for (const [name, url] of arguments[0]) {
        const frame = document.createElement("iframe");
        Object.assign(frame, { name, src: url });
        document.body.append(frame);
    }
"""
HIDE = """
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
"""
SHOW = "delete document.hidden; document.dispatchEvent(new Event('visibilitychange'));"


def files(language, comment):
    """The files that the guide shows: (directory, name) → text."""
    found = re.findall(FILE.format(language, comment), GUIDE, re.DOTALL | re.MULTILINE)
    return {(directory, name): text for directory, name, text in found}


@pytest.fixture(scope="module")
def fragments():
    [article] = re.findall(r"^```html\n(<li id=.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    turbo = files("html", "<!--")["templates", "article.turbo.html"]
    return article, turbo.replace('{% include "article.html" %}', article)


@pytest.fixture
def server(request, app_server, sqlite_only, tmp_path, fragments):
    packages = installed(
        ROOT / "tests" / "frontends" / "package.json", request.config.cache.mkdir("npm")
    )
    written = {**files("html", "<!--"), **files("js", "//")}
    written["templates", "article.html"] = fragments[0]
    for (directory, name), text in written.items():
        (tmp_path / directory).mkdir(exist_ok=True)
        # The guide has one of the two, under its own name.
        text = text.replace("npm/htmx.org", f"npm/{name.removesuffix('.html')}")
        (tmp_path / directory / name).write_text(text)
    templates = [{**settings.TEMPLATES[0], "DIRS": [str(tmp_path / "templates")]}]
    return app_server(
        sqlite_only,
        settings={
            "ROOT_URLCONF": "tests.frontends.urls",
            "TEMPLATES": templates,
            "X_FRAME_OPTIONS": "SAMEORIGIN",
            "STATICFILES_DIRS": [["npm", str(packages)], str(tmp_path / "static")],
            "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager",
        },
    )


@pytest.fixture
def publish(sqlite_only, fragments):
    """Saves articles and sends them, as the guide says."""

    def save(*names):
        for name in names:
            with transaction.atomic():
                context = Context({"article": Group.objects.create(name=name)})
                for channel, fragment in zip(["news", "news-turbo"], fragments, strict=True):
                    html = Template(fragment).render(context)
                    send_event(channel, "message", html, json_encode=False)

    with sqlite_only.as_default():
        yield save


def test_every_front_end_shows_everything_once_and_in_order(browser, server, publish):
    driver = browser.driver

    def run(name, script):
        return driver.execute_script(IN_FRAME, name, script)

    def shown(name):
        script = "return [...document.querySelectorAll('ul li')].map((li) => li.textContent)"
        return run(name, script)

    def wait_shown(numbers):
        expected = [f"<b>{number}</b>" for number in numbers]
        everywhere = dict.fromkeys(CLIENTS, expected)
        wait_until(
            lambda: {name: shown(name) for name in CLIENTS} == everywhere,
            60,
            lambda: str({name: shown(name) for name in CLIENTS}),
        )

    def articles(*numbers):
        publish(*(f"<b>{number}</b>" for number in numbers))

    articles(1, 2)
    driver.get(f"{server.url}/frames/")
    frames = {name: f"/page/{name}/news/" for name in CLIENTS}
    frames |= {f"refused-{name}": f"/page/{name}/staff-news/" for name in CLIENTS}
    driver.execute_script(FRAMES, list(frames.items()))
    wait_shown([1, 2])
    # The very first answer that each of them gets is a 502.
    articles(3)
    wait_shown([1, 2, 3])
    refusal = "return document.getElementById('refusal').textContent"
    for name in CLIENTS:
        wait_until(lambda name=name: "Permission denied" in run(f"refused-{name}", refusal), 30)

    server.kill()
    articles(4, 5)
    with gateway_without_server(server.port) as asked:
        wait_until(lambda: len(asked) >= 2 * len(CLIENTS), 60, lambda: str(asked))
    server.start()
    articles(6)
    wait_shown(range(1, 7))

    run("htmx4", HIDE)
    articles(7)
    run("htmx4", SHOW)
    wait_shown(range(1, 8))

    # Another epoch: nobody knows what was missed, and each page is loaded anew.
    call_command("eventstream_epoch", yes=True, verbosity=0)
    articles(8)
    wait_shown(range(1, 9))
    # Who was refused has not come back since the server was started again.
    assert "staff" not in server.request("/asked/").read().decode()
