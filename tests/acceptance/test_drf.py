"""Streams of the view set through real servers and proxies, and its page in a real browser."""

from __future__ import annotations

import json

import pytest
from django.conf import settings
from selenium.webdriver.common.by import By

from django_eventstream import send_events
from tests.services.deadline import HEALTHY, wait_until
from tests.services.gateway import gateway_without_server
from tests.services.ports import free_port
from tests.sse_client import StreamClient, assert_sequence, numbered

PROJECT = {
    "INSTALLED_APPS": [*settings.INSTALLED_APPS, "rest_framework"],
    "ROOT_URLCONF": "tests.drf",
}
WITH_POLICY = {**PROJECT, "MIDDLEWARE": [*settings.MIDDLEWARE, "tests.drf.add_policy"]}
# What the browser itself says of a connection that ends; an error of the page reads otherwise.
NETWORK = "Failed to load resource"
ROWS = """
    const rows = document.querySelectorAll("#eventstream-events tr:not(.eventstream-quiet)");
    return [...rows].reverse().map((row) => [...row.cells].slice(1).map((cell) => cell.textContent))
"""


@pytest.fixture
def sending(sqlite_only):
    """Sends from this process, whatever happens to the server's."""
    with sqlite_only.as_default():
        yield lambda channel, numbers: send_events(numbered(channel, numbers))


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn+wrapper"])
def test_reconnects_and_a_kill_lose_and_double_nothing(
    app_server, sqlite_only, sending, unique_channels, kind
):
    server = app_server(sqlite_only, kind, settings=PROJECT)
    one, two = unique_channels(2)
    with (
        StreamClient(f"{server.url}/api/events/?channels={one},{two}") as both,
        StreamClient(f"{server.url}/api/events/{one}/", headers={"Accept": "*/*"}) as single,
    ):
        for client in (both, single):
            client.wait_open()
        for number in range(1, 61):
            sending(one, [number])
            sending(two, [number])
            if number % 10 == 0:
                both.wait_open().cut()
            if number == 30:
                server.kill()
                server.start()
        for client, channels in ((both, (one, two)), (single, (one,))):
            for channel in channels:
                client.wait_for(lambda c, channel=channel: c.has(channel, 60))
                assert_sequence(client, channel, range(1, 61))
        assert len(both.connections) > 5


def test_behind_pushpin_the_user_is_the_one_that_the_framework_found(
    app_server, pushpin, sqlite_only, unique_channel
):
    port = free_port()
    proxy = pushpin(port, handler={"message_wait": 300})
    configured = {
        **PROJECT,
        "GRIP_URL": proxy.grip_url,
        "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.proxied.MembersOnly",
    }
    server = app_server(sqlite_only, "gunicorn", port=port, settings=configured)
    server.log_in("anna")
    channel = f"own-anna-{unique_channel}"
    url = f"{proxy.url}/api/named/{channel}/"
    with (
        StreamClient(url, reconnect=False) as stranger,
        StreamClient(url, headers={"Authorization": "Name anna"}) as client,
    ):
        stranger.wait_for(lambda c: c.of_type("stream-error"))
        client.wait_open()
        for number in range(1, 41):
            server.send(*numbered(channel, [number]))
            if number in (10, 20):
                client.wait_open().cut()
            if number == 30:
                server.kill()
                server.start()
        client.wait_for(lambda c: c.has(channel, 40))
        assert_sequence(client, channel, range(1, 41))
        assert [arrival.type for arrival in stranger.arrivals] == ["stream-error"]


class Page:
    """The browsable page of a stream."""

    def __init__(self, browser, url):
        self.browser = browser
        self.driver = browser.driver
        self.driver.get(url)

    def rows(self) -> list[list[str]]:
        """Type, id and data of each event, in the order in which they came."""
        return self.driver.execute_script(ROWS)

    def find(self, name):
        return self.driver.find_element(By.ID, f"eventstream-{name}")

    def wait_state(self, state, timeout=HEALTHY):
        page = self.driver.find_element(By.ID, "eventstream")
        wait_until(
            lambda: page.get_attribute("data-state") == state,
            timeout,
            lambda: f"the page is {page.get_attribute('data-state')}",
        )

    def wait_rows(self, count):
        wait_until(lambda: len(self.rows()) >= count, message=lambda: f"{len(self.rows())} rows")

    def errors(self):
        return [line for line in self.browser.console() if NETWORK not in line]


def test_the_page_shows_events_as_text_under_a_policy_without_inline_code(
    app_server, sqlite_only, browser, unique_channel
):
    server = app_server(sqlite_only, settings=WITH_POLICY)
    # An event of the type `error` says nothing of the connection.
    types = "message,tick,error"
    page = Page(
        browser, f"{server.url}/api/events/?channels={unique_channel}&messages_types={types}"
    )
    page.wait_state("open")
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    server.send(
        (unique_channel, "message", {"text": evil}),
        (unique_channel, "tick", 7),
        (unique_channel, "other", "not shown"),
        (unique_channel, "message", evil),
        (unique_channel, "error", 8),
    )
    page.wait_rows(4)
    page.wait_state("open", timeout=0)
    assert page.rows() == [
        ["message", f"{unique_channel}:1", json.dumps({"text": evil}, indent=2)],
        ["tick", f"{unique_channel}:2", "7"],
        ["message", f"{unique_channel}:4", json.dumps(evil)],
        ["error", f"{unique_channel}:5", "8"],
    ]
    assert page.driver.find_elements(By.CSS_SELECTOR, "#eventstream img, #eventstream script") == []
    assert page.find("count").text == "4"
    assert page.find("cursor").text == f"{unique_channel}:5"
    assert [line for line in page.errors() if "favicon" not in line] == []


def test_the_page_shows_the_cursor_without_its_ticket(
    app_server, sqlite_only, browser, unique_channel
):
    """Six lines of base64 stood there as the cursor, and again beside each stream-open."""
    manager = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.TicketChannelManager"}
    server = app_server(sqlite_only, "uvicorn+wrapper", settings={**PROJECT, **manager})
    url = f"{server.url}/api/events/{unique_channel}/"
    with StreamClient(url, reconnect=False) as client:
        client.wait_open()
    assert ",:" in client.last_event_id
    page = Page(browser, url)
    page.wait_state("open")
    page.find("quiet").click()
    assert page.find("cursor").text == f"{unique_channel}:0"
    shown = page.driver.find_element(By.ID, "eventstream-events").text
    assert "stream-open" in shown
    assert ",:" not in shown
    assert page.errors() == []


def test_the_page_goes_on_after_a_kill_and_a_proxy_that_answered_for_the_server(
    app_server, sqlite_only, sending, browser, unique_channel
):
    server = app_server(sqlite_only, settings=PROJECT)
    page = Page(browser, f"{server.url}/api/events/{unique_channel}/")
    page.wait_state("open")
    sending(unique_channel, range(1, 6))
    page.wait_rows(5)
    server.kill()
    with gateway_without_server(server.port) as asked:
        page.wait_state("lost")
        sending(unique_channel, range(6, 11))
        # An EventSource of the browser's own asks once, and gives up.
        wait_until(lambda: len([path for path in asked if "lastEventId=" in path]) >= 2)
    server.start()
    page.wait_state("open", 60)
    sending(unique_channel, range(11, 16))
    page.wait_rows(15)
    ids = [id_ for _, id_, _ in page.rows()]
    assert ids == [f"{unique_channel}:{number}" for number in range(1, 16)]
    assert page.errors() == []


def test_a_visitor_of_the_page_chooses_disconnects_and_clears(
    app_server, sqlite_only, sending, browser, unique_channel
):
    server = app_server(sqlite_only, settings=PROJECT)
    page = Page(browser, f"{server.url}/api/events/")
    page.wait_state("refused")
    assert page.find("trouble").text == "No channels specified"
    page.driver.find_element(By.NAME, "channels").send_keys(unique_channel)
    page.driver.find_element(By.NAME, "channels").submit()
    wait_until(lambda: f"channels={unique_channel}" in page.driver.current_url)
    page.wait_state("open")
    sending(unique_channel, [1])
    page.wait_rows(1)
    page.find("switch").click()
    page.wait_state("closed")
    page.find("clear").click()
    assert page.rows() == []
    sending(unique_channel, [2])
    page.find("switch").click()
    page.wait_rows(1)
    assert [id_ for _, id_, _ in page.rows()] == [f"{unique_channel}:2"]


def test_the_page_of_a_stream_that_is_refused_says_why(
    app_server, sqlite_only, browser, unique_channel
):
    manager = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager"}
    server = app_server(sqlite_only, settings={**PROJECT, **manager})
    page = Page(browser, f"{server.url}/api/events/staff-{unique_channel}/")
    page.wait_state("refused")
    assert page.find("trouble").text == f"Permission denied to channels: staff-{unique_channel}"
    page.driver.get(f"{server.url}/api/configured/?channels=x")
    alert = page.driver.find_element(By.CSS_SELECTOR, ".alert").text
    assert alert == "Conflicting channels: the view set and the query name them."


def test_the_page_of_a_server_that_cannot_stream_says_so(app_server, sqlite_only, browser):
    server = app_server(sqlite_only, "gunicorn", settings=PROJECT)
    page = Page(browser, f"{server.url}/api/events/a/")
    page.wait_state("lost")
    wait_until(lambda: page.find("trouble").text.startswith("The server answers 501: This server"))
    assert page.errors() == []
