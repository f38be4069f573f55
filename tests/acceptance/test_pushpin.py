"""Streams through a real Pushpin: nothing missing, nothing twice, nothing out of order."""

from __future__ import annotations

import random
import signal
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import quote

import jwt
import pytest
from django.contrib.auth import get_user_model
from django.db import connections

from django_eventstream import channel_permission_changed, send_event, send_events
from django_eventstream.backends import get_storage
from django_eventstream.events import Event
from tests.outlets import close_outlets
from tests.proxied import RECOVERY, Middleman
from tests.services.deadline import AT_ONCE, HEALTHY, wait_until
from tests.services.ports import free_port
from tests.services.python import manage, run_python, start_python
from tests.sse_client import StreamClient, assert_sequence, numbered, positions
from tests.swarm import Swarm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.services.pushpin import Pushpin
    from tests.services.servers import AppServer
    from tests.transcript import Transcript

MANAGER = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.proxied.MembersOnly"}
PERIOD = 1800


class Site:
    """An application behind a proxy. What the test itself sends, another process sends."""

    def __init__(self, proxy: Pushpin, server: AppServer) -> None:
        self.proxy = proxy
        self.server = server

    def url(self, *channels: str, path: str = "/events/", since: str = "") -> str:
        query = [f"channel={urllib.request.quote(channel, safe='')}" for channel in channels]
        query += [f"lastEventId={urllib.request.quote(since, safe='')}"] if since else []
        return f"{self.proxy.url}{path}?{'&'.join(query)}"

    def client(self, *channels: str, user: str = "", **options) -> StreamClient:
        places = {key: options.pop(key) for key in ("path", "since") if key in options}
        headers = self.server.log_in(user) if user else None
        return StreamClient(self.url(*channels, **places), headers=headers, **options)

    def recoveries(self) -> list[str]:
        return [line for line in self.server.log_text().splitlines() if line.startswith(RECOVERY)]


@pytest.fixture
def site(app_server, pushpin, sqlite_only, settings):
    """Starts one: `site("gunicorn", SETTING=…)`; this process gets the same settings."""
    with ExitStack() as stack:

        def start(kind="gunicorn", *, key=None, handler=None, tell=(), **configured) -> Site:
            port = free_port()
            proxy = pushpin(port, handler={"message_wait": 300, **(handler or {})})
            configured = {
                "GRIP_URL": proxy.grip_url if key is None else proxy.control_url,
                "MIDDLEWARE": [*settings.MIDDLEWARE, *(tell or ["tests.proxied.TellRecoveries"])],
                **configured,
            }
            for name, value in configured.items():
                setattr(settings, name, value)
            stack.enter_context(sqlite_only.as_default())
            return Site(proxy, app_server(sqlite_only, kind, port=port, settings=configured))

        yield start
    close_outlets()


def send(channel: str, numbers: Iterable[int]) -> None:
    send_events(numbered(channel, numbers))


class Sender(threading.Thread):
    """Sends 1 … count to each channel."""

    def __init__(self, channels: list[str], count: int, pause: float) -> None:
        super().__init__(daemon=True)
        self.channels, self.count, self.pause = channels, count, pause
        self.sent = 0
        self.start()

    def run(self) -> None:
        try:
            for n in range(1, self.count + 1):
                for channel in self.channels:
                    send(channel, [n])
                self.sent = n
                time.sleep(self.pause)
        finally:
            connections.close_all()


def make_user(name: str, **fields):
    return get_user_model().objects.update_or_create(username=name, defaults=fields)[0]


both_kinds = pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])


@both_kinds
def test_events_reach_a_client_through_the_proxy(site, unique_channel, kind):
    here = site(kind)
    with here.client(unique_channel) as client:
        client.wait_open()
        assert client.last_event_id == f"{unique_channel}:0"
        for n in range(1, 21):
            here.server.send(*numbered(unique_channel, [n]))
        client.wait_for(20)
        assert_sequence(client, unique_channel, range(1, 21))
        assert len(client.connections) == 1


@both_kinds
def test_nothing_is_lost_when_the_proxy_and_the_application_are_killed(site, unique_channels, kind):
    here = site(kind)
    channels = unique_channels(2)
    with ExitStack() as stack:
        # A Pushpin that was just started may never answer a request: its parts have not met yet.
        clients = [stack.enter_context(here.client(*channels, patience=6)) for _ in range(10)]
        for client in clients:
            client.wait_open()
        sender = Sender(channels, 150, 0.04)
        clients[0].wait_for(lambda c: c.has(channels[0], 20))
        here.proxy.kill()
        here.proxy.start()
        clients[0].wait_for(lambda c: c.has(channels[0], 60))
        here.server.kill()
        # Whoever the proxy was just asking for waits until the application can be asked.
        wait_until(lambda: sender.sent >= 90)
        for client in clients[:5]:
            client.cut()
        here.server.start()
        sender.join()
        for client in clients:
            client.wait_for(300)
        for client in clients:
            for channel in channels:
                assert_sequence(client, channel, range(1, 151))


def test_events_that_no_publish_announced_are_found(site, unique_channel, settings):
    here = site()
    middleman = Middleman(here.proxy.control_url)
    settings.GRIP_URL = here.proxy.grip_url.replace(here.proxy.control_url, middleman.url)
    with here.client(unique_channel) as client, here.client(unique_channel) as other:
        client.wait_open()
        other.wait_open()
        send(unique_channel, [1, 2])
        client.wait_for(2)
        # One in the middle: the next one shows the gap.
        middleman.is_losing = True
        send_event(*numbered(unique_channel, [3])[0], async_publish=False)
        middleman.is_losing = False
        send(unique_channel, [4])
        client.wait_for(4)
        # The last one: only a probe shows it.
        middleman.is_losing = True
        send_event(*numbered(unique_channel, [5])[0], async_publish=False)
        middleman.is_losing = False
        client.wait_for(5)
        other.wait_for(5)
        for each in (client, other):
            assert_sequence(each, unique_channel, range(1, 6))
            assert len(each.connections) == 1
    assert middleman.lost == 2
    middleman.close()


def test_the_relay_command_announces_for_processes_that_are_gone(site, unique_channel, sqlite_only):
    here = site()
    with here.client(unique_channel) as client:
        client.wait_open()
        send(unique_channel, [1])
        client.wait_for(1)
        # Stored by a process that died before it told anybody.
        get_storage().append([Event(*numbered(unique_channel, [2])[0][:2], '{"a": 1}')])
        manage(
            "eventstream_relay",
            "--once",
            database=sqlite_only.settings,
            settings={"GRIP_URL": here.proxy.grip_url},
        )
        client.wait_for(2)
        assert client.ids(unique_channel) == [1, 2]


def test_the_relay_command_goes_on_until_it_is_interrupted(
    site, unique_channel, sqlite_only, tmp_path
):
    here = site()
    relay = start_python(
        "from django.core.management import call_command\n"
        "from django_eventstream.watch import Watch\n"
        "turn = Watch.turn\n"
        "Watch.turn = lambda watch: (turn(watch), print('has looked', flush=True))[0]\n"
        "call_command('eventstream_relay', interval=0.2)",
        log=tmp_path / "log",
        database=sqlite_only.settings,
        settings={"GRIP_URL": here.proxy.grip_url},
    )
    wait_until(lambda: "has looked" in (tmp_path / "log").read_text())
    with here.client(unique_channel) as client:
        client.wait_open()
        send(unique_channel, [1])
        client.wait_for(1)
        get_storage().append([Event(*numbered(unique_channel, [2])[0][:2], '{"a": 1}')])
        client.wait_for(2)
        assert client.ids(unique_channel) == [1, 2]
        assert len(client.connections) == 1
    assert relay.is_running
    assert relay.stop(signal.SIGINT, HEALTHY) == 0


def test_recovery_goes_past_a_redirect_to_https(site, unique_channel):
    here = site(
        SECURE_SSL_REDIRECT=True,
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
        SECURE_REDIRECT_EXEMPT=["^events/_next/", "^stats/"],
    )
    https = {"X-Forwarded-Proto": "https"}
    with StreamClient(here.url(unique_channel), headers=https) as client:
        client.wait_open()
        send(unique_channel, [1])
        get_storage().append([Event(*numbered(unique_channel, [2])[0][:2], '{"a": 1}')])
        send(unique_channel, [3])
        client.wait_for(3)
        assert client.ids(unique_channel) == [1, 2, 3]
        assert len(client.connections) == 1
    assert here.recoveries()


def test_events_of_another_process_and_of_a_shell_that_ends_at_once(
    site, unique_channel, sqlite_only
):
    here = site()
    code = """if True:
        import sys
        from django_eventstream import send_events
        from tests.sse_client import numbered
        send_events(numbered(sys.argv[1], range(1, 501)))
    """
    with here.client(unique_channel) as client:
        client.wait_open()
        run_python(
            code,
            unique_channel,
            database=sqlite_only.settings,
            settings={"GRIP_URL": here.proxy.grip_url},
        )
        client.wait_for(500)
        assert_sequence(client, unique_channel, range(1, 501))
        assert len(client.connections) == 1


@pytest.mark.parametrize("prefix", ["", "pre-"])
def test_channel_names_of_any_kind(site, unique_channel, prefix):
    here = site(GRIP_PREFIX=prefix)
    names = ["user:5", "a%I,b;c", 'ünï)(s "x"', "50% d/e+f"]
    channels = [f"{name} {unique_channel}" for name in names]
    with here.client(*channels) as client:
        client.wait_open()
        for n in range(1, 6):
            for channel in channels:
                send(channel, [n])
        client.wait_for(20)
        client.cut()
        for channel in channels:
            send(channel, [6])
        client.wait_for(24)
        for channel in channels:
            assert_sequence(client, channel, range(1, 7))
        assert set(client.last_event_id) <= set(map(chr, range(33, 127)))


@pytest.mark.parametrize("letter", ["x", "ä", "💥"])
def test_the_longest_name_passes_the_proxy(site, unique_channel, letter):
    """Quoted, 255 characters become up to three thousand, in each header that has the name."""
    here = site()
    channel = unique_channel.rjust(255, letter)
    with here.client(channel) as client:
        client.wait_open()
        send(channel, [1, 2])
        client.wait_for(2)
        client.cut()
        send(channel, [3])
        client.wait_for(3)
        # One that no proxy hears of: it finds out by the next, and asks.
        run_python(
            "import sys; from django_eventstream import send_event\n"
            "send_event(sys.argv[1], 'message', {'channel': sys.argv[1], 'n': 4})",
            channel,
            database=here.server.database,
        )
        send(channel, [5])
        client.wait_for(5)
        assert len(client.connections) == 2
    assert_sequence(client, channel, range(1, 6))


def test_data_that_looks_like_directives_arrives_as_it_was(site, unique_channel):
    here = site()
    texts = ["100%", "%I", "%%", "%(user)s", "%", "a\r\n\nb\rc", "\\n", " ü", ""]
    send_event(unique_channel, "message", texts[0], json_encode=False)
    with here.client(unique_channel, since=f"{unique_channel}:0") as client:
        client.wait_for(1)
        for text in texts[1:]:
            send_event(unique_channel, "50%", text, json_encode=False)
        client.wait_for(len(texts))
        normal = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
        assert [event.data for event in client.events] == normal
        assert {event.type for event in client.events[1:]} == {"50%"}
        with here.client(unique_channel, since=f"{unique_channel}:0") as again:
            again.wait_for(len(texts))
            assert [event.data for event in again.events] == normal


@both_kinds
def test_long_history_goes_out_in_pages(site, unique_channel, kind):
    here = site(kind)
    sizes = [random.choice([1, 100, 5_000, 39_000, 60_000, 150_000]) for _ in range(60)]
    sizes[0] = 150_000
    texts = ["%" * size if size < 50_000 else "x" * size for size in sizes]
    send_events([Event(unique_channel, "message", text) for text in texts])
    send_events(numbered(unique_channel, range(1, 301)))
    with here.client(unique_channel, since=f"{unique_channel}:0") as client:
        client.wait_for(360)
        send(unique_channel, [301])
        client.wait_for(361)
        assert [event.data for event in client.events[:60]] == texts
        assert client.ids(unique_channel) == list(range(1, 362))
        assert len(client.connections) == 1
        assert len(here.recoveries()) < 60


def test_events_sent_while_history_goes_out_keep_their_place(site, unique_channels):
    here = site()
    channels = unique_channels(3)
    for channel in channels:
        send_events([Event(channel, "message", "x" * 20_000) for _ in range(40)])
    since = ",".join(f"{channel}:0" for channel in channels)
    senders = [Sender([channel], 60, 0.01) for channel in channels]
    with here.client(*channels, since=since) as client:
        for sender in senders:
            sender.join()
        client.wait_for(300)
        for channel in channels:
            assert client.ids(channel) == list(range(1, 101))
            assert_sequence(client, channel, range(1, 61), ids=False)


def test_an_event_that_is_too_large_to_publish_comes_from_the_log(site, unique_channel):
    here = site()
    with here.client(unique_channel) as client:
        client.wait_open()
        send(unique_channel, [1])
        send_event(unique_channel, "message", "x" * 1_500_000, json_encode=False)
        client.wait_for(2)
        send(unique_channel, [2])
        client.wait_for(3)
        assert client.ids(unique_channel) == [1, 2, 3]
        assert len(client.events[1].data) == 1_500_000
        assert len(client.connections) == 1


def test_a_cursor_names_every_channel_after_every_event(site, unique_channels):
    here = site()
    first, second = sorted(unique_channels(2))
    with here.client(first, second) as client:
        client.wait_open()
        send(first, [1])
        client.wait_for(1)
        send(second, [1])
        client.wait_for(2)
        send(first, [2])
        client.wait_for(3)
        cursors = [event.last_event_id for event in client.events]
        assert cursors == [
            f"{first}:1,{second}:0",
            f"{first}:1,{second}:1",
            f"{first}:2,{second}:1",
        ]


def test_skipped_users_get_an_event_neither_live_nor_replayed(site, unique_channel):
    here = site(**MANAGER)
    alice = make_user("alice")
    with here.client(unique_channel, user="alice") as hers, here.client(unique_channel) as others:
        for client in (hers, others):
            client.wait_open()
        send(unique_channel, [1])
        send_event(*numbered(unique_channel, [2])[0], skip_user_ids=[alice.pk, 999])
        send(unique_channel, [3])
        others.wait_for(3)
        hers.wait_for(2)
        assert hers.numbers(unique_channel) == [1, 3]
        assert others.numbers(unique_channel) == [1, 2, 3]
    since = f"{unique_channel}:0"
    with here.client(unique_channel, user="alice", since=since) as hers:
        hers.wait_for(2)
        assert hers.numbers(unique_channel) == [1, 3]
        # In the answer to a recovery request, too: the proxy did not hear of these.
        skipped = Event(
            *numbered(unique_channel, [4])[0][:2], "{}", None, frozenset({str(alice.pk)})
        )
        get_storage().append([skipped])
        send(unique_channel, [5])
        hers.wait_for(3)
        assert hers.numbers(unique_channel) == [1, 3, 5]
        assert positions(hers.last_event_id) == {unique_channel: 5}
        assert len(hers.connections) == 1


@both_kinds
def test_a_lost_permission_ends_the_streams_of_that_user_at_once(site, unique_channel, kind):
    here = site(kind, **MANAGER)
    channel = f"staff-{unique_channel}"
    make_user("alice", is_staff=True)
    make_user("bob", is_staff=True)
    with here.client(channel, user="bob") as bobs:
        bobs.wait_open()
        # Again within a minute: a proxy drops what it has seen, but this must not be dropped.
        for number in (1, 2):
            alice = make_user("alice", is_staff=True)
            with here.client(channel, user="alice", reconnect=False) as hers:
                hers.wait_open()
                send(channel, [number])
                hers.wait_for(1)
                alice = make_user("alice", is_staff=False)
                channel_permission_changed(alice, channel)
                hers.wait_for(lambda client: client.of_type("stream-error"), timeout=AT_ONCE)
                error = hers.of_type("stream-error")[0]
                assert error.json()["condition"] == "forbidden"
                assert error.json()["channels"] == [channel]
                assert error.last_event_id == "error"
                wait_until(lambda: hers.connections[-1].end)
                send(channel, [10 * number])
        bobs.wait_for(4)
        assert bobs.numbers(channel) == [1, 10, 2, 20]
        assert len(bobs.connections) == 1
        assert hers.numbers(channel) == [2]


def test_a_deleted_user_and_one_made_inactive_are_sent_away(site, unique_channel):
    here = site(**MANAGER, EVENTSTREAM_RECOVERY_SECONDS=2)
    with (
        here.client(unique_channel, user="alice", reconnect=False) as hers,
        here.client(unique_channel, user="bob", reconnect=False) as his,
    ):
        hers.wait_open()
        his.wait_open()
        get_user_model().objects.get(username="alice").delete()
        make_user("bob", is_active=False)
        for client in (hers, his):
            client.wait_for(lambda client: client.of_type("stream-error"))
            assert client.of_type("stream-error")[0].json()["condition"] == "forbidden"


@pytest.mark.parametrize("key", [None, ""], ids=["key", "no key"])
def test_two_users_never_see_each_other_however_slow_recovery_is(site, unique_channel, key):
    here = site(
        tell=["tests.proxied.SlowRecoveries"], key=key, EVENTSTREAM_RECOVERY_SECONDS=2, **MANAGER
    )
    own = {name: f"own-{name}-{unique_channel}" for name in ("alice", "bob")}
    common, loose = unique_channel, f"loose-{unique_channel}"
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(here.client(own[name], common, loose, user=name))
            for name in own
        }
        for client in clients.values():
            client.wait_open()
        # Through the recoveries of the first subscribers and of the period.
        wait_until(lambda: len(here.recoveries()) >= 6)
        for n in (1, 2):
            for channel in (*own.values(), common, loose):
                send(channel, [n])
        for name, client in clients.items():
            client.wait_for(lambda c, name=name: c.has(own[name], 2) and c.has(common, 2))
            for channel in (own[name], common):
                assert_sequence(client, channel, [1, 2])
            # Nobody promises these while a connection asks for what it missed.
            assert client.numbers(loose) in ([1, 2], [1], [2], [])
            assert len(client.events) == 4 + len(client.numbers(loose))
            # Without a key they come back by themselves instead.
            assert len(client.connections) == 1 or key == ""


@pytest.mark.parametrize("urls", ["tests.argument_urls", "tests.hand_made_urls"])
def test_streams_recover_without_an_address_of_their_own(site, unique_channel, urls):
    here = site(ROOT_URLCONF=urls)
    send_events([Event(unique_channel, "message", "x" * 30_000) for _ in range(10)])
    with here.client(path=f"/rooms/{unique_channel}/", since=f"{unique_channel}:0") as client:
        client.wait_for(10)
        get_storage().append([Event(unique_channel, "message", "lost")])
        send(unique_channel, [1])
        client.wait_for(12)
        assert client.ids(unique_channel) == list(range(1, 13))
        assert len(client.connections) == 1
    place = f"/rooms/{unique_channel}/" + ("_next/" if "argument" in urls else "")
    assert all(f" {place}" in line for line in here.recoveries())


ENDS = ["ü", "日本", "a\r\nb: c", "a?b#c", "100%", "%2F%C3", ">; rel=next, <", "a=b&c'@:+$~\\|^"]


@pytest.mark.parametrize("urls", ["tests.argument_urls", "tests.hand_made_urls"])
@both_kinds
def test_streams_recover_at_a_path_of_any_characters(site, unique_channel, kind, urls):
    """What is no ASCII made a header that no proxy reads, and a `>` another link than ours."""
    here = site(kind, ROOT_URLCONF=urls)
    paths = {f"{unique_channel}{end}": "/rooms/{}/" for end in ENDS}
    if urls == "tests.hand_made_urls":
        paths |= {f"{unique_channel} v{end}": "/viewset/{}/" for end in ENDS}
        paths[f"{unique_channel}/;"] = "/{}/stream/"
    with ExitStack() as stack:
        clients = {
            channel: stack.enter_context(here.client(path=path.format(quote(channel))))
            for channel, path in paths.items()
        }
        for channel, client in clients.items():
            client.wait_open(30)
            get_storage().append([Event(channel, "message", "lost")])
            send(channel, [1])
        for channel, client in clients.items():
            client.wait_for(2, timeout=30)
            assert client.ids(channel) == [1, 2]
            assert len(client.connections) == 1


def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(
        url, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        answer = urllib.request.urlopen(request, timeout=HEALTHY)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, dict(answer.headers), answer.read()


def test_forged_signatures_positions_and_tokens_get_nothing(site, unique_channel):
    here = site(**MANAGER)
    send(f"own-alice-{unique_channel}", [1])
    last = f"events-own-alice-{unique_channel}; last-id=0, user-{make_user('alice').pk}; last-id=e0"
    forged = [
        "nonsense",
        jwt.encode({"exp": time.time() + 60}, "x" * 32),
        jwt.encode({"exp": time.time() + 60}, "", algorithm="none"),
        jwt.encode({"exp": time.time() - 60}, here.proxy.key),
        jwt.encode({"iss": "pushpin"}, here.proxy.key),
    ]
    for signature in forged:
        for path in ("/events/_next/", "/events/_next/abc/", "/events/_next/eyJ1IjoxfQ:x/"):
            headers = {"Grip_Sig": signature, "Grip_Last": last}
            status, _, body = get(here.server.url + path, **headers)
            assert (status, body) == (403, b"This address is for GRIP proxies.\n")
        # Not through a proxy, so it would be held here, which WSGI cannot.
        status, headers, _ = get(
            here.server.url + f"/events/?channel={unique_channel}", Grip_Sig=signature
        )
        assert status == 501
        assert not [name for name in headers if name.startswith("Grip-")]
    # The proxy strips what clients forge.
    status, _, body = get(f"{here.proxy.url}/events/_next/", Grip_Last=last)
    assert status == 200
    assert body == b""


def test_a_proxy_can_be_required(site, unique_channel):
    here = site("uvicorn", GRIP_PROXY_REQUIRED=True)
    status, _, body = get(f"{here.server.url}/events/?channel={unique_channel}")
    assert status == 501
    assert b"GRIP_PROXY_REQUIRED" in body
    with here.client(unique_channel) as client:
        client.wait_open()


def test_the_middleware_of_django_grip_may_be_there(site, unique_channel, settings):
    here = site(
        tell=["django_grip.GripMiddleware", "tests.proxied.TellRecoveries"],
        EVENTSTREAM_RECOVERY_SECONDS=1,
    )
    with here.client(unique_channel) as client:
        client.wait_open()
        send(unique_channel, [1])
        wait_until(lambda: len(here.recoveries()) >= 2)
        send(unique_channel, [2])
        client.wait_for(2)
        assert_sequence(client, unique_channel, [1, 2])
        assert len(client.connections) == 1


def test_a_restored_database_resets_the_streams_that_are_held(site, unique_channel, sqlite_only):
    here = site(EVENTSTREAM_RECOVERY_SECONDS=1)
    with here.client(unique_channel) as client:
        client.wait_open()
        send(unique_channel, [1, 2])
        client.wait_for(2)
        manage("eventstream_epoch", "--yes", database=sqlite_only.settings)
        client.wait_for(lambda c: c.of_type("stream-reset"))
        [reset] = client.of_type("stream-reset")
        assert reset.json()["reasons"] == {unique_channel: "epoch"}
        send(unique_channel, [3])
        client.wait_for(3)
        assert_sequence(client, unique_channel, [1, 2, 3])
        name, _, epoch = client.last_event_id.partition(",:")
        assert name == f"{unique_channel}:3"
        assert int(epoch) > 0
        client.cut()
        send(unique_channel, [4])
        client.wait_for(4)
        assert len(client.of_type("stream-reset")) == 1


def test_without_a_log_events_pass_and_nothing_is_promised(site, unique_channel):
    here = site(EVENTSTREAM_STORAGE_CLASS=None, EVENTSTREAM_RECOVERY_SECONDS=1)
    with here.client(unique_channel) as client:
        client.wait_open()
        assert client.last_event_id == ""
        wait_until(lambda: len(here.recoveries()) >= 2)
        send_event(unique_channel, "message", {"rate": "100%"})
        client.wait_for(1)
        assert client.events[0].json() == {"rate": "100%"}
        assert len(client.connections) == 1


def test_streams_get_keep_alives_however_much_is_sent(site, unique_channel):
    """A page that listens for other types took a busy stream for dead, and opened it anew."""
    here = site(EVENTSTREAM_KEEP_ALIVE_SECONDS=2)
    with here.client(unique_channel) as client:
        client.wait_open()
        sender = Sender([unique_channel], 30, 0.2)
        client.wait_for(lambda c: len(c.of_type("keep-alive")) >= 2)
        assert sender.is_alive(), "they came when nothing else did"
        sender.join()
        client.wait_for(30)
        assert client.of_type("keep-alive")[0].data == ""
        assert_sequence(client, unique_channel, range(1, 31))


def test_connections_that_are_alike_share_the_requests_for_them(site, unique_channel):
    here = site(EVENTSTREAM_RECOVERY_SECONDS=2)
    half = [here.url(unique_channel)] * 50
    with Swarm(half) as first:
        first.wait_open()
        # Pushpin's inner queues have 100 places: more streams at once cost it one now and then.
        with Swarm(half) as second:
            second.wait_open()
            send(unique_channel, [1])
            wait_until(lambda: len(here.recoveries()) >= 4)
            assert len(here.recoveries()) < 20
            for swarm in (first, second):
                swarm.wait_for(1)
                for member in swarm.members:
                    assert_sequence(member, unique_channel, [1])
                    assert_never_cut(member)


def assert_never_cut(member: Transcript) -> None:
    """It has had one stream. Pushpin answers 502 to some of a herd that comes at once."""
    ends = [(found.status, found.end, found.body) for found in member.connections]
    assert [status for status, _, _ in ends if status != 502] == [200], (
        f"{ends}, {[(a.type, a.connection, a.last_event_id) for a in member.arrivals]}"
    )


def seconds_until_all_have(swarm: Swarm, channel: str, number: int) -> float:
    sent = time.monotonic()
    send(channel, [number])
    swarm.wait_for(lambda member: member.has(channel, number))
    return max(member.events[-1].at for member in swarm.members) - sent


def is_quiet(here: Site) -> bool:
    """Whether the proxy has asked for nothing during half a second."""
    before = len(here.recoveries())
    time.sleep(0.5)
    return before == len(here.recoveries()) >= 200


def test_a_common_event_reaches_200_clients_with_channels_of_their_own(site, unique_channels):
    """The predecessor took 19.7 s for the last of them: each had a recovery link of its own."""
    here = site()
    common, *own = unique_channels(201)
    with Swarm([here.url(common, channel) for channel in own]) as swarm:
        swarm.wait_open()
        # Each new channel makes its connections ask a second later. Amid that a connection
        # waits for its own answer, which costs the application a few milliseconds each, but
        # for nobody's turn.
        wait_until(lambda: len(here.recoveries()) > 20)
        assert seconds_until_all_have(swarm, common, 1) < 5
        wait_until(lambda: is_quiet(here))
        assert min(seconds_until_all_have(swarm, common, n) for n in (2, 3, 4)) < 0.5
        send_events([event for channel in own for event in numbered(channel, [1])])
        swarm.wait_for(5)
        for member, channel in zip(swarm.members, own, strict=True):
            assert_sequence(member, common, [1, 2, 3, 4])
            assert_sequence(member, channel, [1])
