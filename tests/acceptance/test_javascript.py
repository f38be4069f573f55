"""`ReconnectingEventSource` in a real browser: servers killed or silent, proxies without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.conf import settings

import django_eventstream
from django_eventstream import send_event
from tests.services.deadline import HEALTHY, wait_until
from tests.services.forwarder import HOST, Forwarder
from tests.services.gateway import gateway_without_server

PROJECT = {
    "INSTALLED_APPS": [*settings.INSTALLED_APPS, "rest_framework"],
    "ROOT_URLCONF": "tests.drf",
}
STATIC = Path(django_eventstream.__file__).parent / "static" / "django_eventstream"
CLIENT = STATIC / "reconnecting-eventsource.js"
NETWORK = "Failed to load resource"
LISTEN = """
    window.seen = [];
    window.states = [];
    window.source = new ReconnectingEventSource(...arguments);
    source.onopen = () => states.push("open");
    source.onerror = () => states.push("error");
    source.onmessage = (event) => seen.push(["onmessage", event.data, event.lastEventId]);
    for (const type of ["tick", "stream-error", "stream-reset"]) {
        source.addEventListener(type, (event) => seen.push([type, event.data, event.lastEventId]));
    }
"""
# An EventSource that does what the test says, and timers that only tell how long they are.
PUPPET = """
    window.made = [];
    window.Puppet = class extends EventTarget {
        readyState = 0;
        constructor(url, options) {
            super();
            Object.assign(this, { url, options });
            made.push(this);
        }
        open() { this.readyState = 1; this.dispatchEvent(new Event("open")); }
        fail(state) { this.readyState = state; this.dispatchEvent(new Event("error")); }
        say(type, data, lastEventId) {
            this.dispatchEvent(new MessageEvent(type, { data, lastEventId }));
        }
        close() { this.readyState = 2; }
    };
    window.waits = [];
    window.setTimeout = (callback, wait) => { waits.push(wait); window.go = callback; return 1; };
    window.start = (options) => {
        window.source = new ReconnectingEventSource("http://a.test/x", {
            eventSourceClass: Puppet, keep_alive: 0, ...options });
    };
    window.last = () => made[made.length - 1];
    Math.random = () => 1;
"""
# A clock that the test turns, with one connection that has opened.
CLOCK = """
    let now = 1e12, made_timers = 0;
    const timers = new Map();
    Date.now = () => now;
    Math.random = () => 0;
    window.setTimeout = (callback, wait) => {
        timers.set(++made_timers, { at: now + wait, callback });
        return made_timers;
    };
    window.clearTimeout = (timer) => timers.delete(timer);
    window.pass = (seconds) => {
        const end = now + 1000 * seconds;
        const due = () => [...timers].filter(([, { at }]) => at <= end);
        while (due().length) {
            const [timer, { at, callback }] = due().sort(([, a], [, b]) => a.at - b.at)[0];
            timers.delete(timer);
            now = Math.max(now, at);
            callback();
        }
        now = end;
    };
    window.errors = 0;
    start({ keep_alive: undefined });
    source.onerror = () => errors++;
    last().open();
"""


class Page:
    """A page of a project's own that has loaded the client."""

    def __init__(self, browser, server):
        self.browser = browser
        self.driver = browser.driver
        self.server = server

    def load(self, query=""):
        self.driver.get(f"{self.server.url}/page/{query}")
        wait_until(lambda: self.run("return typeof ReconnectingEventSource === 'function'"))
        return self

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def listen(self, *arguments):
        self.run(LISTEN, *arguments)

    def seen(self):
        return self.run("return seen")

    def wait_seen(self, count, timeout=HEALTHY):
        wait_until(lambda: len(self.seen()) >= count, timeout, lambda: str(self.seen()))

    def wait_open(self):
        # An event that is sent before the first cursor has come is before the stream.
        ready = "return source.readyState === 1 && source.lastEventId !== ''"
        wait_until(lambda: self.run(ready), message="it is not open")

    def errors(self):
        lines = self.browser.console()
        return [line for line in lines if NETWORK not in line and "favicon" not in line]


@pytest.fixture
def server(app_server, sqlite_only):
    manager = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager"}
    return app_server(sqlite_only, settings={**PROJECT, **manager})


@pytest.fixture
def page(browser, server):
    page = Page(browser, server)
    yield page.load()
    assert page.errors() == []


@pytest.fixture
def puppets(browser):
    """A page without a server, which has the client and only puppets to talk to."""
    page = Page(browser, None)
    page.driver.get("about:blank")
    page.run(CLIENT.read_text())
    page.run(PUPPET)
    yield page
    assert page.errors() == []


@pytest.fixture
def clock(puppets):
    """Lets seconds pass, and tells how many connections there were and how many errors of them."""
    puppets.run(CLOCK)

    def passes(seconds, script=""):
        return puppets.run(f"{script}; pass({seconds}); return [made.length, errors]")

    return passes


@pytest.fixture
def sending(sqlite_only):
    """Sends from this process: what has an even number as a message, the others as ticks."""

    def send(channel, numbers):
        for number in numbers:
            send_event(channel, "tick" if number % 2 else "message", number)

    with sqlite_only.as_default():
        yield send


def expected(channel, numbers):
    return [
        ["tick" if number % 2 else "onmessage", str(number), f"{channel}:{number}"]
        for number in numbers
    ]


def test_it_goes_on_after_kills_and_502s_with_every_event_once(
    page, server, sending, unique_channel
):
    page.listen(f"/events/?channel={unique_channel}", {"max_retry_time": 1000})
    page.wait_open()
    sending(unique_channel, range(1, 6))
    page.wait_seen(5)
    for first in (6, 16):
        server.kill()
        sending(unique_channel, range(first, first + 5))
        with gateway_without_server(server.port) as asked:
            wait_until(lambda asked=asked: len([p for p in asked if "lastEventId" in p]) >= 2)
        for path in asked:
            # The query of the project's own stays.
            assert path.startswith(f"/events/?channel={unique_channel}")
            assert path.count("lastEventId=") <= 1
        server.start()
        page.wait_open()
        sending(unique_channel, range(first + 5, first + 10))
        page.wait_seen(first + 9)
    assert page.seen() == expected(unique_channel, range(1, 26))
    assert page.run("return source.lastEventId") == f"{unique_channel}:25"
    states = page.run("return states")
    assert (states[0], states[-1], states.count("open")) == ("open", "open", 3)


def test_it_begins_where_the_page_says(page, sending, unique_channel):
    sending(unique_channel, range(1, 6))
    page.listen(f"/events/?channel={unique_channel}", {"lastEventId": f"{unique_channel}:2"})
    page.wait_seen(3)
    assert page.seen() == expected(unique_channel, range(3, 6))


def test_it_stops_for_good_where_the_server_refuses(page, unique_channel):
    page.listen(f"/events/?channel=staff-{unique_channel}")
    page.wait_seen(1)
    [[kind, data, cursor]] = page.seen()
    assert (kind, json.loads(data)["condition"], cursor) == ("stream-error", "forbidden", "error")
    assert page.run("return [source.readyState, source.lastEventId]") == [2, ""]


def test_a_page_that_is_left_and_found_again_has_missed_nothing(page, sending, unique_channel):
    page.listen(f"/events/?channel={unique_channel}")
    page.wait_open()
    sending(unique_channel, [1])
    page.wait_seen(1)
    page.driver.get(f"{page.server.url}/plain/?format=json")
    sending(unique_channel, [2])
    page.driver.back()
    if not page.run("return window.seen"):
        pytest.skip("this browser keeps no page for the way back")
    page.wait_seen(2)
    sending(unique_channel, [3])
    page.wait_seen(3)
    assert page.seen() == expected(unique_channel, [1, 2, 3])


def test_events_called_error_and_open_come_once_and_say_nothing_of_the_connection(
    page, server, unique_channel
):
    """They were taken for the connection's own, which was opened anew for them, for ever."""
    page.run(
        """
        window.made = 0;
        class Counting extends EventSource { constructor(...all) { super(...all); made++; } }
        window.heard = [];
        const note = (how) => (event) =>
            "data" in event && heard.push([how, event.data, event.lastEventId, source.readyState]);
        window.source = new ReconnectingEventSource(arguments[0], { eventSourceClass: Counting });
        source.onerror = note("onerror");
        source.onopen = note("onopen");
        for (const type of ["error", "open", "message"]) source.addEventListener(type, note(type));
    """,
        f"/events/?channel={unique_channel}",
    )
    page.wait_open()
    kinds = ["error", "open", "message"]
    server.send(*((unique_channel, kind, kind) for kind in kinds))
    wait_until(lambda: page.run("return heard.some(([how]) => how === 'message')"), 30)
    assert page.run("return [heard, made]") == [
        [
            [how, f'"{kind}"', f"{unique_channel}:{number}", 1]
            for number, kind in enumerate(kinds, 1)
            for how in ([f"on{kind}", kind] if kind != "message" else [kind])
        ],
        1,
    ]


def test_a_connection_that_died_without_a_word_is_opened_anew_where_it_was(
    app_server, sqlite_only, browser, sending, unique_channel
):
    keep_alive = {"EVENTSTREAM_KEEP_ALIVE_SECONDS": 1}
    server = app_server(sqlite_only, settings={**PROJECT, **keep_alive})
    with Forwarder(server.port) as way:
        page = Page(browser, server)
        page.driver.get(f"http://{HOST}:{way.port}/page/")
        page.listen(f"/events/?channel={unique_channel}", {"keep_alive": 1000})
        page.wait_open()
        sending(unique_channel, [1])
        page.wait_seen(1)
        way.freeze(new_ones=False)
        sending(unique_channel, [2, 3])
        # The browser may try other connections first that are dead as well.
        page.wait_seen(3, timeout=60)
        assert page.seen() == expected(unique_channel, [1, 2, 3])
    assert page.errors() == []


def test_a_page_that_imports_modules(page, sending, unique_channel):
    page.load("?module")
    found = page.driver.execute_async_script("""
        const done = arguments[arguments.length - 1];
        import("/static/django_eventstream/reconnecting-eventsource.mjs").then((module) => done([
            module.default === ReconnectingEventSource,
            module.ReconnectingEventSource === ReconnectingEventSource,
            module.EventSourceNotAvailableError === EventSourceNotAvailableError,
        ]))
    """)
    assert found == [True, True, True]
    page.listen(f"/events/?channel={unique_channel}")
    page.wait_open()
    sending(unique_channel, [1])
    page.wait_seen(1)


@pytest.mark.parametrize(
    ("options", "ceilings"),
    [
        ({}, [1000, 2000, 4000, 8000, 16000, 30000, 30000]),
        ({"max_retry_time": 3000}, [1000, 2000, 3000, 3000, 3000]),
    ],
)
def test_waits_double_up_to_a_limit_and_begin_anew_once_it_was_open(puppets, options, ceilings):
    puppets.run("start(arguments[0])", options)
    fail = "const before = made.length; last().fail(2); const asked = made.length; go();"
    for _ in range(2):
        puppets.run("waits.length = 0; last().open()")
        for _ in ceilings:
            assert puppets.run(f"{fail} return [asked - before, made.length - before]") == [0, 1]
        assert puppets.run("return waits") == ceilings
    # Full jitter: anything from nothing.
    assert puppets.run("Math.random = () => 0; last().fail(2); return waits.pop()") == 0


def test_the_first_attempt_is_the_browsers_which_knows_when_the_server_wants_it(puppets):
    puppets.run("start()")
    state = "return [made.length, waits.length, source.readyState, last().readyState]"
    assert puppets.run(f"last().open(); {state}") == [1, 0, 1, 1]
    assert puppets.run(f"last().fail(0); {state}") == [1, 0, 0, 0]
    # It failed as well, so that there is an outage: not every three seconds any more.
    assert puppets.run(f"last().fail(0); {state}") == [1, 1, 0, 2]
    assert puppets.run(f"go(); {state}") == [2, 1, 0, 0]


def test_the_cursor_is_kept_for_every_type_and_put_into_any_url(puppets):
    puppets.run("""
        window.source = new ReconnectingEventSource(
            "http://a.test/x?a=1&lastEventId=old&b=%C3%BC#part",
            { eventSourceClass: Puppet, keep_alive: 0, withCredentials: true, lastEventId: "a:1" },
        );
        last().open();
    """)
    query = "return new URL(last().url).search"
    assert puppets.run(query) == "?a=1&lastEventId=a%3A1&b=%C3%BC"
    for kind, cursor in [
        ("stream-open", "a:2"),
        ("message", "a:3"),
        ("keep-alive", "a:4"),
        ("stream-reset", "a:5"),
    ]:
        puppets.run("last().say(arguments[0], '', arguments[1])", kind, cursor)
        puppets.run("last().fail(2); go(); last().open()")
        assert f"lastEventId={cursor.replace(':', '%3A')}&" in puppets.run(query)
    # An event without an id leaves the cursor where it is, and nobody listens for this one.
    puppets.run("last().say('message', '', ''); last().say('unheard', '', 'a:9')")
    assert puppets.run("return [source.lastEventId, last().options.withCredentials]") == [
        "a:5",
        True,
    ]


@pytest.mark.parametrize(
    ("brought", "shown"),
    [
        ("a:1,b%2C:2,:ip5yHUKl-DeWq_aG3Uwq5", "a:1,b%2C:2"),
        ("a:1,:WzEsbnV.c2ln", "a:1"),
        ("a:1,:1700000000,:ip5yHUKl", "a:1,:1700000000"),
        ("a:1,:1700000000", "a:1,:1700000000"),
        ("a:1", "a:1"),
    ],
)
def test_a_ticket_gets_neither_into_urls_nor_to_the_page(puppets, brought, shown):
    """It went into the query at each attempt, and so into the logs of every proxy."""
    puppets.run(
        """
        window.heard = [];
        start({ lastEventId: arguments[0] });
        source.addEventListener("message", (event) => heard.push(event.lastEventId, event.data));
        """,
        brought,
    )
    query = "return new URL(last().url).searchParams.get('lastEventId')"
    assert puppets.run(query) == shown
    puppets.run("last().say('message', 'x', arguments[0])", brought)
    assert puppets.run("return [source.lastEventId, ...heard]") == [shown, shown, "x"]
    puppets.run("last().fail(2); go()")
    assert puppets.run(query) == shown


def test_it_has_the_interface_of_an_event_source(puppets):
    assert puppets.run("""
        const log = [];
        window.source = new ReconnectingEventSource(new URL("http://a.test/x"), {
            eventSourceClass: Puppet, keep_alive: 0 });
        const listener = { handleEvent: (event) => log.push(event.type + event.data) };
        source.addEventListener("a", listener);
        source.addEventListener("a", listener);
        source.addEventListener("b", () => { throw new Error("of the page") });
        window.onerror = () => true;
        source.onopen = () => log.push("open");
        source.addEventListener("open", () => log.push("opened"));
        const first = last();
        first.open();
        first.say("a", 1, "");
        source.removeEventListener("a", listener);
        first.say("a", 2, "");
        first.say("b", 3, "x");
        log.push(source.lastEventId, source.url, source.withCredentials, source.readyState);
        source.close();
        first.open();
        first.say("a", 4, "");
        log.push(source.readyState, first.readyState, made.length, waits.length);
        log.push(source.OPEN, ReconnectingEventSource.CLOSED, source.CONNECTING);
        return log;
    """) == ["open", "opened", "a1", "x", "http://a.test/x", False, 1, 2, 1, 1, 0, 1, 2, 0]


def test_it_wakes_up_with_the_network_and_sleeps_while_the_page_is_hidden_away(puppets):
    puppets.run("start()")
    tell = "window.dispatchEvent(new Event(arguments[0])); return [made.length, last().readyState]"
    puppets.run("last().open(); last().say('message', '', 'a:1')")
    assert puppets.run(tell, "online") == [1, 1]
    puppets.run("last().fail(2)")
    assert puppets.run(tell, "online") == [2, 0]
    assert puppets.run(tell, "pageshow") == [2, 0]
    assert puppets.run(tell, "pagehide") == [2, 2]
    assert puppets.run(tell, "online") == [2, 2]
    assert puppets.run(tell, "pageshow") == [3, 0]
    assert puppets.run("return new URL(last().url).search") == "?lastEventId=a%3A1"
    puppets.run("source.close()")
    assert puppets.run(tell, "pageshow") == [3, 2]


def test_what_is_silent_for_three_keep_alives_is_dead(clock, puppets):
    assert clock(59.9, "last().say('message', '', 'a:1')") == [1, 0]
    assert clock(59.9, "last().say('anything', '', '')") == [2, 1], "the page heard nothing of it"
    assert puppets.run("return [made[0].readyState, new URL(last().url).search]") == [
        2,
        "?lastEventId=a%3A1",
    ]
    # It may speak more rarely than was assumed. The next one does not even open.
    assert clock(120, "last().open()") == [3, 2]
    assert clock(239.9) == [3, 2]
    assert clock(0.2, "Math.random = () => 1") == [3, 3]
    assert clock(2) == [4, 3]


@pytest.mark.parametrize(("seconds", "longest"), [(5, 15), (20, 60), (50, 150)])
def test_how_often_a_server_speaks_is_learnt_from_it(clock, seconds, longest):
    for _ in range(4):
        assert clock(seconds, "last().say('keep-alive', '', '')") == [1, 0]
    # Two that were held up on their way, and came at once, teach nothing.
    clock(0, "last().say('keep-alive', '', ''); last().say('keep-alive', '', '')")
    assert clock(longest - 0.1) == [1, 0]
    assert clock(0.2) == [2, 1]


def test_keep_alives_that_waited_for_a_page_teach_it_nothing(clock):
    """A page that was frozen, or showed an `alert()`, gets many at once: it then took each
    connection for dead after three seconds, for ever."""
    for _ in range(4):
        clock(20, "last().say('keep-alive', '', '')")
    clock(10)
    assert clock(89.9, "for (let n = 0; n < 9; n++) last().say('keep-alive', '', '')") == [1, 0]
    assert clock(0.2) == [2, 1]


def test_a_server_that_begins_to_speak_more_rarely_is_soon_left_alone(clock):
    """As after a deploy: open pages cut each of its connections, for ever."""
    for _ in range(4):
        clock(20, "last().say('keep-alive', '', '')")
    script = """
        for (let second = 0; second < 2000; second++) {
            if (last().readyState === 0) last().open();
            if (second % 100 === 99) last().say("keep-alive", "", "");
            pass(1);
        }
    """
    [connections, _] = clock(0, script)
    assert connections <= 4


def test_a_server_that_speaks_more_rarely_than_assumed_is_soon_left_alone(clock, puppets):
    script = """
        for (let second = 0; second < 2000; second++) {
            if (last().readyState === 0) last().open();
            if (second % 100 === 0) last().say("keep-alive", "", "");
            pass(1);
        }
    """
    [connections, _] = clock(0, script)
    assert connections == 2


@pytest.mark.parametrize("silence", [0, 10])
@pytest.mark.parametrize("event", ["online", "pageshow", "visibilitychange"])
def test_a_page_that_wakes_up_waits_seconds_for_what_is_due(clock, event, silence):
    target = "document" if event == "visibilitychange" else "window"
    wake = f"{target}.dispatchEvent(new Event('{event}'))"
    clock(silence)
    # After a change of network nothing is as it was; otherwise a keep-alive may not be due yet.
    patience = 5 if event == "online" else 25 - silence
    assert clock(patience - 0.1, wake) == [1, 0]
    assert clock(0.2) == [2, 1]
    clock(30, "last().open()")
    assert clock(4.9, wake) == [2, 1]
    assert clock(0, "last().say('keep-alive', '', '')") == [2, 1], "it speaks"
    assert clock(59.9) == [2, 1]


def test_a_page_that_is_hidden_is_not_awake_and_one_that_is_shown_comes_back_at_once(clock):
    show = "document.dispatchEvent(new Event('visibilitychange'))"
    hide = (
        f"Object.defineProperty(document, 'hidden', {{ value: true, configurable: true }}); {show}"
    )
    clock(30)
    assert clock(29.9, hide) == [1, 0]
    assert clock(0, "Math.random = () => 1; last().fail(2)") == [1, 1]
    assert clock(0, f"delete document.hidden; {show}") == [2, 1]


@pytest.mark.parametrize("keep_alive", [0, -1, "Infinity"])
def test_it_can_be_told_to_wait_for_ever(clock, puppets, keep_alive):
    puppets.run(f"source.close(); made.length = 0; start({{ keep_alive: {keep_alive} }})")
    assert clock(1e6, "last().open()")[0] == 1


def test_without_any_event_source_it_says_so(puppets):
    assert puppets.run("""
        delete window.EventSource;
        try {
            new ReconnectingEventSource("http://a.test/x");
        } catch (error) {
            return [error instanceof EventSourceNotAvailableError, error.name];
        }
    """) == [True, "EventSourceNotAvailableError"]
