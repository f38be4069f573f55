"""The demo in real browsers: what a visitor sees is what the log has, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from selenium.webdriver.common.by import By

from tests.services import reaper
from tests.services.deadline import HEALTHY, wait_until
from tests.services.demo import Demo
from tests.services.gateway import gateway_without_server

# What the browser itself says of a connection that ends; an error of the page reads otherwise.
NETWORK = "Failed to load resource"
ROWS = """
    return [...document.querySelectorAll("#ids li[data-id]")].reverse()
        .map((row) => [row.dataset.channel, Number(row.dataset.id)])
"""
TEXTS = """return [...document.querySelectorAll("#messages p")].map((text) => text.textContent)"""


class Page:
    """One visitor's window on the demo."""

    def __init__(self, browser, demo):
        self.browser = browser
        self.driver = browser.driver
        self.demo = demo
        self.driver.get(demo.url)
        state = self.run("return document.getElementById('state').textContent")
        cursor = json.loads(state)["cursor"]
        self.first = {part.split(":")[0]: int(part.split(":")[1]) for part in cursor.split(",")}
        self.wait_state("open")

    def run(self, script):
        return self.driver.execute_script(script)

    def find(self, id_):
        return self.driver.find_element(By.ID, id_)

    def click(self, id_):
        self.find(id_).click()

    def write(self, text):
        self.find("text").send_keys(text + "\n")

    def texts(self):
        return self.run(TEXTS)

    def wait_text(self, text):
        wait_until(lambda: text in self.texts(), message=lambda: f"{text!r} not in {self.texts()}")

    @property
    def state(self):
        return self.run("return document.body.dataset.state")

    def wait_state(self, *states, timeout=HEALTHY):
        wait_until(lambda: self.state in states, timeout, lambda: f"the page is {self.state}")

    def ids(self, channel):
        return [id_ for name, id_ in self.run(ROWS) if name == channel]

    def wait_id(self, channel, id_):
        wait_until(
            lambda: id_ in self.ids(channel),
            message=lambda: f"{id_} not in {self.ids(channel)}",
        )

    def verdict(self):
        return {name: int(self.find(name).text) for name in ("received", "missing", "doubled")}

    def check(self):
        """The page has every id of the log that came after its cursor, once, in order."""
        for channel, first in self.first.items():
            logged = [id_ for id_ in self.demo.ids(channel) if id_ > first]
            assert logged == list(range(first + 1, first + 1 + len(logged)))
            if logged:
                self.wait_id(channel, logged[-1])
            assert self.ids(channel)[: len(logged)] == logged
        wait_until(lambda: self.verdict()["received"] == len(self.run(ROWS)))
        assert self.verdict()["missing"] == self.verdict()["doubled"] == 0

    def errors(self):
        return [line for line in self.browser.console() if NETWORK not in line]


@pytest.fixture
def demo(running):
    return running(Demo())


@pytest.fixture
def page(browser, demo):
    page = Page(browser, demo)
    yield page
    assert page.errors() == []


@pytest.fixture
def other_page(other_browser, demo):
    page = Page(other_browser, demo)
    yield page
    assert page.errors() == []


def test_two_windows_see_what_either_writes(page, other_page):
    page.write("from the one")
    other_page.wait_text("from the one")
    other_page.write("from the other")
    page.wait_text("from the other")
    assert page.texts() == other_page.texts() == ["from the one", "from the other"]
    assert [page.ids("room"), other_page.ids("room")] == [[1, 2], [1, 2]]
    for each in (page, other_page):
        each.wait_id("ticker", each.first["ticker"] + 3)
        each.check()
        # Not even a message of the network: nothing was cut here.
        assert each.browser.console() == []


def test_what_people_write_is_text_wherever_it_comes_from(page):
    text = "<img src=x onerror=alert(1)> </script> & ünïcödé 🙂 \u2028"
    page.run(f"document.getElementById('text').value = {json.dumps(text)}")
    page.click("text")
    page.run("document.getElementById('form').requestSubmit()")
    wait_until(page.texts)
    live = page.texts()
    page.driver.refresh()
    wait_until(page.texts)
    assert page.texts() == live == [text.strip("\u2028 ")]
    assert page.run("return document.querySelectorAll('#messages img').length") == 0


def test_a_window_whose_connection_was_cut_misses_and_doubles_nothing(page, other_page):
    page.wait_id("ticker", page.first["ticker"] + 1)
    page.click("cut")
    assert page.state == "cut"
    other_page.click("burst")
    other_page.wait_text("20 of 20 in one transaction")
    assert page.texts() == []
    page.wait_state("open")
    page.wait_text("20 of 20 in one transaction")
    assert page.texts() == [f"{number} of 20 in one transaction" for number in range(1, 21)]
    for each in (page, other_page):
        each.check()


def test_windows_go_on_where_they_were_after_the_server_was_killed(page, other_page, demo):
    page.write("before")
    other_page.wait_text("before")
    for _ in range(2):
        killed = demo.server
        demo.kill_server()
        other_page.wait_state("reconnecting")
        wait_until(lambda killed=killed: demo.server not in (None, killed), message=demo.log_text)
        for each in (page, other_page):
            each.wait_state("open")
    other_page.write("after")
    page.wait_text("after")
    assert page.texts() == other_page.texts() == ["before", "after"]
    for each in (page, other_page):
        each.check()


def test_the_button_that_kills_the_server_does(page, demo):
    killed = demo.server
    page.click("kill")
    page.wait_state("reconnecting")
    page.wait_state("open")
    assert demo.server != killed
    page.check()


def test_a_page_comes_back_after_a_proxy_answered_for_a_server_that_was_away(page, demo):
    """An EventSource gives up for ever on a 502; the page's own client does not."""
    os.kill(demo.pid, signal.SIGSTOP)
    demo.kill_server()
    wait_until(lambda: demo.server is None)
    with gateway_without_server(demo.port) as asked:
        wait_until(lambda: len([path for path in asked if "lastEventId" in path]) >= 3)
    os.kill(demo.pid, signal.SIGCONT)
    page.wait_state("open")
    page.check()


def test_a_page_whose_history_is_gone_starts_over(page, demo):
    """The demo's database is removed while a page is open: its cursor is ahead of the new log."""
    page.write("soon forgotten")
    page.wait_text("soon forgotten")
    demo.terminate()
    for file in demo.data.iterdir():
        file.unlink()
    demo.start()
    wait_until(lambda: page.texts() == [] and page.state == "open", message=page.texts)
    page.write("first of the new log")
    page.wait_text("first of the new log")
    assert page.verdict()["missing"] == page.verdict()["doubled"] == 0


def test_the_admin_shows_what_was_sent(page):
    page.write("for the record")
    page.wait_text("for the record")
    page.driver.find_element(By.CSS_SELECTOR, "footer button").click()
    wait_until(lambda: "/admin/django_eventstream/event/" in page.driver.current_url)
    page.driver.get(page.driver.current_url.partition("?")[0] + "?q=room:1")
    assert "for the record" in page.find("result_list").text
    page.driver.find_element(By.CSS_SELECTOR, "#result_list th a").click()
    assert "for the record" in page.find("content").text
    assert not page.driver.find_elements(By.CSS_SELECTOR, "#content input:not([type=hidden])")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_demo_stops_at_once_with_open_streams_and_leaves_nothing_running(page, demo, sign):
    os.kill(demo.pid, sign)
    # It would kill what has not ended after ten seconds.
    assert demo.process.popen.wait(timeout=10) == 0
    assert reaper.processes_of_session(demo.pid) == []
    assert demo.log_text().rstrip().endswith("The demo has stopped.")
    assert "Traceback" not in demo.log_text()


def test_children_of_a_demo_that_was_killed_end_by_themselves(demo):
    os.kill(demo.pid, signal.SIGKILL)
    demo.process.popen.wait(timeout=HEALTHY)
    wait_until(lambda: not reaper.processes_of_session(demo.pid), message="its children go on")


def test_the_demo_says_where_it_is_and_how_to_stop_it_and_nothing_else(page, demo):
    page.write("a word")
    page.wait_text("a word")
    said = [line.strip() for line in demo.log_text().splitlines() if line.strip()]
    assert said == [
        f"The demo runs at  {demo.url}",
        "Open it in two windows, side by side, and write something.",
        f"To kill the server under them:  kill -9 {demo.server}",
        "To stop the demo:               Ctrl-C",
    ]


def test_a_second_demo_says_where_the_first_one_runs(demo):
    again = subprocess.run(demo.process.popen.args, capture_output=True, text=True, timeout=HEALTHY)
    assert again.returncode == 0
    assert demo.url in again.stdout
    assert again.stderr == ""
