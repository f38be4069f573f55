"""The publisher against a real HTTP server: order, retries, refusals, forks and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest

from django_eventstream import processes
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.exceptions import PublishError
from django_eventstream.proxies import get_proxies
from django_eventstream.publishers import items, outlet, probes
from django_eventstream.publishers.grip import GripPublisher
from tests.outlets import close_outlets
from tests.services.deadline import AT_ONCE, HEALTHY, wait_until
from tests.services.python import run_python, start_python


class ControlPort:
    """A proxy's publishing port. `status` is what it answers; `poison` items are refused."""

    def __init__(self, port: int = 0) -> None:
        self.items: list[dict] = []
        self.batches: list[int] = []
        self.headers: list[dict] = []
        self.paths: list[str] = []
        self.status = 200
        self.asked = 0
        self.open = threading.Event()
        self.open.set()
        control = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["items"]
                control.asked += 1
                control.open.wait(HEALTHY)
                status = control.status
                if any("poison" in json.dumps(item) for item in items):
                    status = 400
                if status == 200:
                    control.items += items
                    control.batches.append(len(items))
                    control.headers.append(dict(self.headers))
                    control.paths.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def ids(self, channel: str = "a") -> list[int]:
        name = f"events-{channel}"
        found = [item for item in list(self.items) if item["channel"] == name]
        return [int(item["id"]) for item in found if "no-seq" not in item]

    def close(self) -> None:
        self.open.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def control():
    port = ControlPort()
    yield port
    close_outlets()
    port.close()


@pytest.fixture
def publisher(control, settings):
    settings.GRIP_URL = control.url
    settings.EVENTSTREAM_PUBLISH_TIMEOUT = HEALTHY
    return GripPublisher()


def events(numbers, channel="a", **fields):
    return [Event(channel, "message", "x", number, **fields) for number in numbers]


def test_events_are_posted_in_order_and_in_batches(control, publisher):
    control.open.clear()
    for number in range(1, 1_001):
        publisher.publish(events([number]))
    control.open.set()
    wait_until(lambda: len(control.ids()) == 1_000)
    assert control.ids() == list(range(1, 1_001))
    assert max(control.batches) == items.BATCH_ITEMS
    assert len(control.batches) < 20
    assert set(control.paths) == {"/publish/"}
    wait_until(lambda: publisher.statistics[0].posted == 1_000)
    assert publisher.statistics[0].lost == 0


def test_publishing_blocks_nobody_and_waiting_waits(control, publisher):
    control.open.clear()
    started = time.monotonic()
    publisher.publish(events([1]))
    assert time.monotonic() - started < AT_ONCE
    control.open.set()
    publisher.publish(events([2, 3]), wait=True)
    assert control.ids() == [1, 2, 3]


@pytest.mark.parametrize("status", [500, 503])
def test_a_failing_proxy_is_tried_again_and_told_to_who_waits(control, publisher, status):
    control.status = status
    with pytest.raises(PublishError, match=str(status)):
        publisher.publish(events([1]), wait=True)
    publisher.publish(events([2]))
    control.status = 200
    wait_until(lambda: control.ids() == [1, 2])
    assert publisher.statistics[0].failures >= 1


def test_a_silent_proxy_fails_after_the_timeout(control, settings):
    settings.GRIP_URL = control.url
    settings.EVENTSTREAM_PUBLISH_TIMEOUT = 1
    publisher = GripPublisher()
    control.open.clear()
    started = time.monotonic()
    with pytest.raises(PublishError, match="timed out"):
        publisher.publish(events([1]), wait=True)
    assert 0.9 < time.monotonic() - started < AT_ONCE


def test_an_answer_that_never_ends_fails_after_the_timeout(settings):
    """Each byte had the whole timeout for itself, so that whoever waited did for ever."""
    settings.EVENTSTREAM_PUBLISH_TIMEOUT = 1
    stop = threading.Event()

    def trickle(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not stop.wait(0.1):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.GRIP_URL = f"http://127.0.0.1:{server.getsockname()[1]}"
        thread = threading.Thread(target=trickle, args=(server,))
        thread.start()
        publisher = GripPublisher()
        with pytest.raises(PublishError, match="timed out|not within"):
            publisher.publish(events([1]), wait=True)
        wait_until(lambda: publisher.statistics[0].failures)
        stop.set()
        thread.join()
        close_outlets()


@contextmanager
def waiting(publisher, *numbers):
    """Waits for the publishing of these events in a thread; yields what came of it in the end."""
    failures: list[PublishError] = []

    def wait() -> None:
        try:
            publisher.publish(events(numbers), wait=True)
        except PublishError as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: len(publisher._outlets[0]._queue) > len(numbers))
    yield failures
    thread.join(HEALTHY)
    assert not thread.is_alive()


@pytest.fixture
def slow(control, settings):
    """A publisher whose proxy is slow with its first event, and has not failed."""
    settings.GRIP_URL = control.url
    settings.EVENTSTREAM_PUBLISH_TIMEOUT = 8
    control.open.clear()
    publisher = GripPublisher()
    publisher.publish(events([1]))
    wait_until(lambda: control.asked)
    return publisher


def test_an_item_that_grows_too_old_fails_the_wait_for_it(control, slow, monkeypatch):
    """Such items left the queue without a word: who waited did for ever."""
    monkeypatch.setattr(outlet, "PATIENCE_SECONDS", 0.3)
    with waiting(slow, 2, 3) as failures:
        wait_until(lambda: slow._outlets[0]._queue.older_than(time.monotonic() - 0.3)[2:])
        control.open.set()
    assert "did not take them for 0.3 s" in str(failures[0])
    assert control.ids() == [1]
    assert slow.statistics[0].lost == 2


def test_closing_the_queue_ends_a_wait(control, slow):
    """What was closed settled nothing: who waited did for ever."""
    with waiting(slow, 2) as failures:
        close_outlets()
        control.open.set()
    assert "closed" in str(failures[0])


def test_the_end_of_the_process_ends_a_wait(control, slow):
    """The thread ended with items in its queue: who waited did for ever."""
    with waiting(slow, 2) as failures:
        processes.flush(0.1)
        control.open.set()
    assert "the process ended first" in str(failures[0])


def test_no_wait_is_longer_than_its_deadline(control, slow):
    """Every item had a minute, and a proxy that is slow with each could take longer."""
    slow._outlets[0]._timeout = 0.2
    with waiting(slow, 2) as failures:
        wait_until(lambda: failures)
    assert "not within 0.4 s" in str(failures[0])
    control.open.set()
    wait_until(lambda: control.ids() == [1, 2])


def test_a_full_queue_fails_the_wait_for_an_event(control, slow, monkeypatch):
    monkeypatch.setattr(items, "QUEUE_ITEMS", 2)
    with pytest.raises(PublishError, match="full"):
        slow.publish(events([2, 3]), wait=True)
    control.open.set()
    wait_until(lambda: control.ids() == [1, 2])


def test_an_unstored_event_that_is_too_large_fails_the_wait_for_it(control, publisher):
    """It was left out, and the publish seemed to have gone well."""
    large = Event("a", "message", "x" * (items.BATCH_BYTES + 1))
    with pytest.raises(PublishError, match="larger"):
        publisher.publish([large, *events([2])], wait=True)
    wait_until(lambda: control.ids() == [2])


def no_thread(thread):
    raise RuntimeError("can't start new thread")


def test_a_thread_that_cannot_start_is_tried_again(control, publisher, monkeypatch):
    """One failure to start it silenced the proxy for good, and made `flush()` raise."""
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(PublishError, match="can't start"):
            publisher.publish(events([1]), wait=True)
        publisher.get_ready()
    publisher.publish(events([2]), wait=True)
    assert control.ids() == [1, 2]


def test_a_flush_posts_events_that_no_thread_could_be_started_for(control, publisher, monkeypatch):
    """Python starts no thread for what is sent as its last act."""
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        publisher.publish(events(range(1, 201)))
    processes.flush()
    assert control.ids() == list(range(1, 201))


def test_a_fault_of_ours_does_not_silence_the_proxy(control, publisher, monkeypatch):
    """The thread died of it, and what came later waited for ever."""

    def fail(channel, last_id):
        raise ValueError(channel)

    monkeypatch.setattr(probes, "SILENCE_SECONDS", 0)
    monkeypatch.setattr(publisher._outlets[0], "_encode_probe", fail)
    publisher.publish(events([1]), wait=True)
    wait_until(lambda: publisher.statistics[0].failures)
    publisher.publish(events([2]), wait=True)
    assert control.ids() == [1, 2]


def test_an_event_sent_after_a_flush_is_posted(control, publisher, caplog):
    publisher.publish(events([1]))
    processes.flush()
    assert control.ids() == [1]
    publisher.publish(events([2]), wait=True)
    assert control.ids() == [1, 2]
    assert "not published" not in caplog.text


def test_a_proxy_that_comes_back_gets_what_it_missed(settings, control):
    port = control.port
    control.close()
    settings.GRIP_URL = f"http://127.0.0.1:{port}"
    publisher = GripPublisher()
    publisher.publish(events(range(1, 4)))
    wait_until(lambda: publisher.statistics[0].failures)
    again = ControlPort(port)
    wait_until(lambda: again.ids() == [1, 2, 3])
    again.close()


def test_one_bad_item_does_not_take_the_others_along(control, publisher):
    control.open.clear()
    publisher.publish(events([1]))
    publisher.publish([Event("a", "message", "poison", 2), *events([3, 4])])
    control.open.set()
    wait_until(lambda: control.ids() == [1, 3, 4])
    with pytest.raises(PublishError, match="400"):
        publisher.publish([Event("a", "message", "poison", 5)], wait=True)
    assert publisher.statistics[0].lost == 2


def test_what_does_not_fit_into_the_queue_is_counted(control, publisher, monkeypatch):
    monkeypatch.setattr(items, "QUEUE_ITEMS", 10)
    control.open.clear()
    publisher.publish(events(range(1, 31)))
    assert publisher.statistics[0].lost == 20
    control.open.set()
    wait_until(lambda: control.ids() == list(range(1, 11)))


def test_what_no_proxy_takes_in_a_minute_is_given_up(control, publisher, monkeypatch, caplog):
    monkeypatch.setattr(outlet, "PATIENCE_SECONDS", 0.5)
    control.status = 500
    publisher.publish(events([1]))
    wait_until(lambda: publisher.statistics[0].lost == 1)
    wait_until(lambda: f"1 event was not published to {control.url}" in caplog.text)
    control.status = 200
    publisher.publish(events([2]), wait=True)
    assert control.ids() == [2]


def test_every_outage_of_a_proxy_is_logged_and_its_retries_are_not(control, publisher, caplog):
    for outage in (1, 2):
        failures = publisher.statistics[0].failures
        control.status = 503
        publisher.publish(events([outage]))
        wait_until(lambda failures=failures: publisher.statistics[0].failures >= failures + 2)
        control.status = 200
        wait_until(lambda outage=outage: publisher.statistics[0].posted == outage)
        assert caplog.text.count(f"Publishing to {control.url} failed: ") == outage


def test_a_silent_channel_is_probed_even_after_its_publish_was_lost(
    control, publisher, monkeypatch
):
    monkeypatch.setattr(probes, "SILENCE_SECONDS", 0.3)
    publisher.publish(events([1, 2]), wait=True)
    wait_until(lambda: len(control.items) == 3)
    probe = control.items[-1]
    assert (probe["id"], probe["prev-id"], probe["no-seq"]) == ("2", "2", True)
    assert probe["formats"]["http-stream"]["content"].startswith(":")


def test_each_proxy_is_served_though_another_one_is_silent(control, settings):
    dead = socket.create_server(("127.0.0.1", 0))
    settings.GRIP_URL = control.url
    settings.GRIP_PROXIES = [{"control_uri": f"http://127.0.0.1:{dead.getsockname()[1]}"}]
    settings.EVENTSTREAM_PUBLISH_TIMEOUT = 2 * HEALTHY
    publisher = GripPublisher()
    assert len(publisher.statistics) == 2
    publisher.publish(events([1]))
    wait_until(lambda: control.ids() == [1])
    dead.close()


def test_the_settings_list_does_not_grow(settings):
    """django-grip appends GRIP_URL to it for every signed request."""
    settings.GRIP_PROXIES = [{"control_uri": "http://127.0.0.1:1"}]
    settings.GRIP_URL = "http://127.0.0.1:2"
    for _ in range(3):
        get_proxies.cache_clear()
        assert len(get_proxies()) == 2
    assert len(settings.GRIP_PROXIES) == 1


def test_keys_are_sent_the_way_each_kind_of_proxy_reads_them(control, settings):
    settings.GRIP_URL = f"{control.url}/base?iss=me&key={'k' * 32}&more=1"
    GripPublisher().publish(events([1]), wait=True)
    scheme, _, token = control.headers[0]["Authorization"].partition(" ")
    assert scheme == "Bearer"
    assert jwt.decode(token, "k" * 32, algorithms=["HS256"])["iss"] == "me"
    assert control.paths == ["/base/publish/?more=1"]
    settings.GRIP_URL = f"{control.url}?key=secret&verify-key=other"
    GripPublisher().publish(events([2]), wait=True)
    assert control.headers[1]["Authorization"] == "Bearer secret"
    settings.GRIP_URL = f"{control.url}?verify-key=other"
    GripPublisher().publish(events([3]), wait=True)
    assert "Authorization" not in control.headers[2]


def test_nobody_waits_for_nothing(control, publisher):
    publisher.publish([], wait=True)
    assert control.asked == 0


def test_what_processes_tell_each_other_is_not_published(control, publisher):
    publisher.publish([Event(CONTROL_CHANNEL, "disconnect", "{}", 1), *events([1])], wait=True)
    assert [item["channel"] for item in control.items] == ["events-a"]


def test_a_permission_that_was_taken_away_makes_proxies_ask_whoever_announces_it(
    control, publisher
):
    """Only the process that took it away told them, and never did if it was killed before."""
    taken_away = Event(CONTROL_CHANNEL, "disconnect", '{"user": "5", "channel": "a"}', 1)
    publisher.publish([taken_away])
    wait_until(lambda: len(control.items) == 1)
    assert control.items[0]["channel"] == "user-5"


def test_a_disconnect_is_told_again_to_who_was_not_held_yet(control, publisher, monkeypatch):
    monkeypatch.setattr(outlet, "LATER_SECONDS", 0.3)
    publisher.disconnect("5", "a")
    wait_until(lambda: len(control.items) == 1)
    publisher.disconnect("5", "a")
    wait_until(lambda: len(control.items) == 4)
    assert control.items[1:] == control.items[:1] * 3
    assert control.items[0]["channel"] == "user-5"
    assert "id" not in control.items[0]


SEND = """
import os, signal, sys, time
from django_eventstream.events import Event
from django_eventstream.publishers.grip import GripPublisher
publisher = GripPublisher()
publisher.publish([Event("a", "message", "x", n) for n in range(1, 501)])
"""


def test_a_process_that_ends_at_once_loses_nothing(control):
    run_python(SEND, settings={"GRIP_URL": control.url})
    assert control.ids() == list(range(1, 501))


def test_a_process_that_ends_does_not_wait_for_a_dead_proxy(control):
    control.open.clear()
    code = SEND + "print(time.monotonic())"
    ended_at = float(run_python(code, settings={"GRIP_URL": control.url}))
    assert time.monotonic() - ended_at < processes.FLUSH_SECONDS + AT_ONCE


def test_a_server_that_sigterm_ends_in_order_loses_nothing(control, tmp_path):
    code = (
        SEND
        + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nprint('ready')\ntime.sleep(60)"
    )
    control.open.clear()
    process = start_python(code, log=tmp_path / "log", settings={"GRIP_URL": control.url})
    wait_until(lambda: "ready" in process.log_text())
    os.kill(process.pid, signal.SIGTERM)
    control.open.set()
    process.wait()
    assert control.ids() == list(range(1, 501))


def test_a_forked_process_publishes_for_itself(control):
    code = """if True:
        import os
        from django_eventstream.events import Event
        from django_eventstream.publishers.grip import GripPublisher
        publisher = GripPublisher()
        publisher.publish([Event("a", "message", "x", 1)], wait=True)
        pid = os.fork()
        publisher.publish([Event("a" if pid else "b", "message", "x", 2)], wait=True)
        if pid:
            os.waitpid(pid, 0)
        else:
            os._exit(0)
    """
    run_python(code, settings={"GRIP_URL": control.url})
    assert control.ids("a") == [1, 2]
    assert control.ids("b") == [2]
