"""A real Pushpin that signs nothing: what is private is never told to it, and arrives all the same.

Whoever sends `Grip-Sig`, with whatever in it, is taken for such a proxy.
"""

from __future__ import annotations

import json

from django.contrib.sessions.models import Session

from django_eventstream import send_event, send_events
from django_eventstream.backends import get_storage
from django_eventstream.events import Event
from tests.acceptance.test_pushpin import (  # noqa: F401 - a fixture
    MANAGER,
    both_kinds,
    get,
    make_user,
    send,
    site,
)
from tests.grip_last import last_in
from tests.proxied import Middleman
from tests.services.deadline import wait_until
from tests.sse_client import assert_sequence, numbered


def send_unheard(channel: str, number: int) -> None:
    """Stored by a process that died before it told any proxy."""
    [(_, event_type, data)] = numbered(channel, [number])
    get_storage().append([Event(channel, event_type, json.dumps(data))])


@both_kinds
def test_visitors_recover_at_one_address(site, unique_channel, settings, kind):  # noqa: F811
    here = site(kind, key="")
    middleman = Middleman(here.proxy.control_url)
    settings.GRIP_URL = middleman.url
    send_events([Event(unique_channel, "message", "x" * 30_000) for _ in range(10)])
    with here.client(unique_channel, since=f"{unique_channel}:0") as client:
        client.wait_for(10)
        middleman.is_losing = True
        send_event(*numbered(unique_channel, [1])[0], async_publish=False)
        middleman.is_losing = False
        send(unique_channel, [2])
        client.wait_for(12)
        assert client.ids(unique_channel) == list(range(1, 13))
        assert len(client.connections) == 1
    asked = {line.split()[1] for line in here.recoveries() if "last-id" in line}
    assert asked == {"/events/_next/"}
    middleman.close()


def test_a_users_stream_loses_nothing_and_comes_back_by_itself(site, unique_channel):  # noqa: F811
    """The proxy was told what was missed, by a link that was good for hours in anybody's hands."""
    here = site(key="", **MANAGER)
    own = f"own-alice-{unique_channel}"
    alice = make_user("alice")
    send_events([Event(own, "message", "%" * 30_000) for _ in range(10)])
    with here.client(own, user="alice", since=f"{own}:0", retry=None) as client:
        client.wait_for(10)
        # The proxy asks when the channel had its first reader, and goes on with the stream.
        wait_until(here.recoveries)
        history = len(client.connections)
        assert 3 <= history <= 5
        send(own, [11])
        client.wait_for(11)
        send_event(*numbered(own, [12])[0], skip_user_ids=[alice.pk])
        send(own, [13])
        client.wait_for(12)
        assert len(client.connections) == history
        # Of one event it does not hear, and it finds out by the next.
        send_unheard(own, 14)
        send(own, [15])
        client.wait_for(14)
        assert len(client.connections) == history + 1
        # The client knows of one more than the proxy has heard of, when it comes back.
        send_unheard(own, 16)
        client.cut()
        client.wait_for(15)
        asked = len(here.recoveries())
        wait_until(lambda: len(here.recoveries()) > asked)
        send(own, [17])
        client.wait_for(16)
        assert len(client.connections) == history + 2
        assert client.ids(own) == [*range(1, 12), *range(13, 18)]
        assert_sequence(client, own, [11, 13, 14, 15, 16, 17], ids=False)


def test_a_users_stream_stays_when_the_proxy_asks_for_it_twice_in_the_beginning(
    site,  # noqa: F811
    unique_channel,
):
    """At once, since others' stream of the channel is behind, and a second later, since it is the
    first one of the user's own channel. An end then would come again with each return."""
    here = site(key="", **MANAGER)
    own = f"own-alice-{unique_channel}"
    with here.client(unique_channel) as visitor:
        visitor.wait_open()
        send(unique_channel, [1])
        visitor.wait_for(1)
        send_unheard(unique_channel, 2)
        with here.client(own, unique_channel, user="alice", since=f"{unique_channel}:0") as client:
            client.wait_for(2)
            wait_until(lambda: sum("events-own" in line for line in here.recoveries()) >= 2)
            send(own, [1])
            send(unique_channel, [3])
            client.wait_for(4)
            assert len(client.connections) == 1
            assert_sequence(client, unique_channel, [1, 2, 3])
        visitor.wait_for(3)
        assert_sequence(visitor, unique_channel, [1, 2, 3])
        assert len(visitor.connections) == 1


def test_a_client_that_speaks_in_the_proxys_name_gets_nothing_after_its_logout(
    site,  # noqa: F811
    unique_channel,
):
    """Such a client was told a link with a token, by which it read on for six to twelve hours."""
    here = site(key="", **MANAGER)
    own = f"own-alice-{unique_channel}"
    cookie = here.server.log_in("alice")
    here.server.send(*numbered(own, [1]))
    stream = f"/events/?channel={own}"
    status, told, body = get(here.server.url + stream, Grip_Sig="any", **cookie)
    assert (status, b"stream-open" in body) == (200, True)
    link = told["Grip-Link"].partition(">")[0].removeprefix("<")
    last = last_in(told["Grip-Channel"])
    Session.objects.all().delete()
    here.server.send(*numbered(own, [2]))
    behind = last.replace("last-id=1", "last-id=0", 1)
    for url in (here.server.url, here.proxy.url):
        for path in (link, f"{link}abc/", f"{link}eyJ1IjoxfQ:x/"):
            for said in (last, behind):
                for name in ("Grip_Last", "Grip-Last"):
                    headers = {"Grip-Sig": "any", name: said}
                    status, answered, body = get(url + path, **headers)
                    assert (status, body) == (200, b"")
                    assert "Grip-Hold" not in answered
        body = get(url + stream, Grip_Sig="any", **{"Grip-Last": last})[2]
        assert b"Permission denied" in body
        assert b'"n"' not in body


def test_forged_positions_give_nothing(site, unique_channel):  # noqa: F811
    here = site(key="", **MANAGER)
    send(f"own-alice-{unique_channel}", [1])
    last = f"events-own-alice-{unique_channel}; last-id=0, user-{make_user('alice').pk}; last-id=e0"
    answers = [
        get(here.server.url + path, Grip_Sig="any", Grip_Last=last)
        for path in (
            "/events/_next/",
            "/events/_next/abc/",
            f"/events/?channel=own-alice-{unique_channel}",
        )
    ]
    assert [status for status, _, _ in answers] == [200, 200, 403]
    assert [body for _, _, body in answers[:2]] == [b"", b""]
    assert b"Permission denied" in answers[2][2]
    assert b'"n": 1' not in answers[2][2]
