"""The predecessor's three examples, ours, in real browsers: time, chat, and chat with DRF."""

from __future__ import annotations

import json
import signal
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from uuid import uuid4

import pytest
from selenium.webdriver.common.by import By

from tests.services.deadline import HEALTHY, wait_until
from tests.services.examples import Examples
from tests.sse_client import StreamClient

# What the browser itself says of a connection that ends; an error of the page reads otherwise.
NETWORK = "Failed to load resource"
MESSAGES = """
    return [...document.querySelectorAll("#messages li")]
        .map((item) => [item.querySelector("b").textContent, item.querySelector("p").textContent])
"""

FITS = "return document.documentElement.scrollWidth <= innerWidth"


@pytest.fixture(scope="module")
def examples():
    """One server for all of them: each test has rooms of its own."""
    with Examples() as service:
        yield service


@pytest.fixture(autouse=True)
def running_again(examples):
    """A test that failed may have left the server killed."""
    if not examples.is_running:
        examples.start()


@pytest.fixture
def room():
    return f"test-{uuid4().hex[:8]}"


class Window:
    """One person's window on a page."""

    def __init__(self, browser, url):
        self.browser = browser
        self.driver = browser.driver
        self.driver.get(url)

    @property
    def state(self):
        return self.driver.execute_script("return document.body.dataset.state")

    def wait_state(self, state):
        wait_until(lambda: self.state == state, message=lambda: f"the page is {self.state}")

    def write(self, *texts):
        for text in texts:
            self.driver.find_element(By.ID, "text").send_keys(f"{text}\n")

    def messages(self):
        """Who wrote, and what, from top to bottom."""
        return [tuple(each) for each in self.driver.execute_script(MESSAGES)]

    def wait_messages(self, expected):
        wait_until(
            lambda: set(expected) <= set(self.messages()),
            30,
            lambda: f"missing: {set(expected) - set(self.messages())}",
        )

    def errors(self):
        return [line for line in self.browser.console() if NETWORK not in line]


def join(browser, examples, kind, room, user):
    """Open a room and join it as a person does."""
    window = Window(browser, f"{examples.url}/{kind}/{room}/")
    window.driver.find_element(By.NAME, "user").send_keys(f"{user}\n")
    wait_until(lambda: f"user={user}" in window.driver.current_url)
    window.wait_state("open")
    return window


def post(url, values, content_type="application/json"):
    """What a program posts, without cookies; the answer as JSON."""
    encode = json.dumps if content_type == "application/json" else urllib.parse.urlencode
    headers = {"Content-Type": content_type, "Accept": "application/json"}
    request = urllib.request.Request(url, encode(values).encode(), headers)
    with urllib.request.urlopen(request, timeout=HEALTHY) as response:
        return json.load(response)


def logged(examples, room):
    """The events of a room by id, as they are in the log: who wrote, and what."""
    select = "SELECT data FROM django_eventstream_event WHERE channel = ? AND eid > 0 ORDER BY eid"
    with closing(sqlite3.connect(examples.directory / "db.sqlite3")) as connection:
        # Encoded twice, as in 5.3.4.
        rows = [json.loads(json.loads(d)) for (d,) in connection.execute(select, [f"room-{room}"])]
    return [(row["user"], row["text"]) for row in rows]


def saved(examples, room):
    """The messages of a room, as they are in its table."""
    select = "SELECT user, text FROM example_chat_message WHERE room = ? ORDER BY id"
    with closing(sqlite3.connect(examples.directory / "db.sqlite3")) as connection:
        return connection.execute(select, [room]).fetchall()


def texts(user, numbers):
    return [(user, f"{user} {number}") for number in numbers]


def test_the_time_comes_from_another_process_whenever_it_runs(examples, browser):
    window = Window(browser, f"{examples.url}/time/")
    window.wait_state("open")
    clock = window.driver.find_element(By.ID, "clock")
    assert clock.text == "–:–:–"
    for sign, ticks in ((signal.SIGINT, 2), (signal.SIGTERM, 1)):
        sender = examples.background("send_time")
        try:
            for _ in range(ticks):
                shown = clock.text
                wait_until(lambda shown=shown: clock.text != shown, message=sender.log_text)
            assert sender.stop(sign, timeout=HEALTHY) == 0
            assert sender.log_text() == ""
        finally:
            sender.kill()
    assert window.errors() == []


@pytest.mark.parametrize("kind", ["chat", "chat-rest"])
def test_two_browsers_show_every_message_once_in_order_though_the_server_is_killed(
    examples, browser, other_browser, room, kind
):
    anna = join(browser, examples, kind, room, "anna")
    bert = join(other_browser, examples, kind, room, "bert")
    for number in range(10):
        if number == 4:
            # What was just posted may or may not have been saved, and nobody was answered.
            examples.kill()
        anna.write(f"anna {number}")
        bert.write(f"bert {number}")
    for window in (anna, bert):
        window.wait_state("reconnecting")
    examples.start()
    post(f"{examples.url}/chat-rest/{room}/messages/", {"user": "carl", "text": "carl 0"})
    expected = [*texts("anna", range(10)), *texts("bert", range(10)), ("carl", "carl 0")]
    for window in (anna, bert):
        window.wait_messages(expected)
    bert.write("bert 10")
    expected.append(("bert", "bert 10"))
    for window in (anna, bert):
        window.wait_messages(expected)
        assert window.messages() == logged(examples, room) == saved(examples, room)
        assert sorted(window.messages()) == sorted(expected)
        for user, count in (("anna", 10), ("bert", 11)):
            own = [each for each in window.messages() if each[0] == user]
            assert own == texts(user, range(count))
        assert window.errors() == []
    anna.driver.refresh()
    anna.wait_messages(expected)
    assert anna.messages() == bert.messages()


def test_both_chats_are_the_same_rooms_and_what_people_write_is_text(
    examples, browser, other_browser, room
):
    anna = join(browser, examples, "chat", room, "anna")
    bert = join(other_browser, examples, "chat-rest", room, "bert")
    elsewhere = f"{room}-elsewhere"
    post(f"{examples.url}/chat-rest/{elsewhere}/messages/", {"user": "carl", "text": "not here"})
    anna.write("<img src=x onerror=alert(1)>")
    anna.wait_messages([("anna", "<img src=x onerror=alert(1)>")])
    bert.write("</script> & ünïcödé")
    expected = [("anna", "<img src=x onerror=alert(1)>"), ("bert", "</script> & ünïcödé")]
    for window in (anna, bert):
        window.wait_messages(expected)
        window.driver.refresh()
        window.wait_messages(expected)
        assert window.messages() == expected
        assert window.driver.find_elements(By.CSS_SELECTOR, "#messages img") == []
        assert window.errors() == []


def test_a_message_posted_as_json_is_an_event_and_a_key_posted_again_is_none(examples, room):
    base = f"{examples.url}/chat-rest/{room}"
    message = {"user": "anna", "text": "hello", "key": str(uuid4())}
    with StreamClient(f"{base}/events/") as client:
        client.wait_open()
        posted = post(f"{base}/messages/", message)
        assert post(f"{base}/messages/", message) == posted
        other = post(f"{base}/messages/", {"user": "anna", "text": "hello"})
        client.wait_for(lambda c: c.of_type("message")[1:])
        events = [json.loads(arrival.data) for arrival in client.of_type("message")]
    assert events == [posted, other]
    assert set(posted) == {"id", "user", "text", "created"}
    with urllib.request.urlopen(f"{base}/messages/?format=json") as response:
        assert json.load(response) == {
            "messages": [posted, other],
            "last_event_id": f"room-{room}:2",
        }
    with pytest.raises(urllib.error.HTTPError, match="400"):
        post(f"{base}/messages/", {"user": "anna", "text": ""})
    assert saved(examples, room) == logged(examples, room) == [("anna", "hello")] * 2


def test_the_stream_of_a_room_is_a_page_of_the_browsable_api(examples, browser, room):
    base = f"{examples.url}/chat-rest/{room}"
    window = Window(browser, f"{base}/events/")
    page = window.driver.find_element(By.ID, "eventstream")
    wait_until(lambda: page.get_attribute("data-state") == "open")
    post(f"{base}/messages/", {"user": "anna", "text": "shown as it comes"})
    wait_until(lambda: "shown as it comes" in page.text, message=lambda: page.text)
    window.driver.get(f"{base}/messages/")
    assert "shown as it comes" in window.driver.find_element(By.TAG_NAME, "body").text


def test_the_demo_leads_to_each_example_and_each_chat_to_a_room(examples, browser):
    window = Window(browser, examples.url.removesuffix("/examples"))
    links = window.driver.find_elements(By.CSS_SELECTOR, "footer a[href*=examples]")
    pages = [link.get_attribute("href") for link in links]
    assert [page.removeprefix(examples.url) for page in pages] == [
        "/time/", "/chat/default/", "/chat-rest/default/",
    ]  # fmt: skip
    for page in pages:
        with urllib.request.urlopen(page.replace("default/", "")) as response:
            assert response.url == page


def test_every_page_fits_into_its_window(examples, browser, room):
    """A ticket in the cursor, one long word, made the demo's page as wide as itself."""
    demo = examples.url.removesuffix("/examples")
    chat = f"{examples.url}/chat/{room}/"
    for page in (f"{demo}/", f"{examples.url}/time/", chat, f"{chat}?user=anna"):
        window = Window(browser, page)
        if window.state:
            window.wait_state("open")
        assert window.driver.execute_script(FITS), page
