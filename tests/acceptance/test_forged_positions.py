"""Clients that write a proxy's headers themselves, through a real Pushpin with a key.

Pushpin removes `Grip-Last` from what clients send and lets `Grip_Last` pass. uWSGI and Granian's
WSGI hand both to Django by one name; uvicorn hands them over as they are.
"""

from __future__ import annotations

import http.client
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from django_eventstream.backends import get_storage
from django_eventstream.events import Event
from tests.acceptance.test_pushpin import (  # noqa: F401 - a fixture
    MANAGER,
    make_user,
    send,
    site,
)
from tests.grip_last import proven_last
from tests.services.deadline import HEALTHY, wait_until
from tests.sse_client import assert_sequence, numbered

CONFLATING = ["uwsgi", "granian-wsgi"]
SERVERS = [*CONFLATING, "uvicorn"]
SECRET = b"not for mallory"


def first_of(url: str, headers: dict[str, str], seconds: float = 1) -> bytes:
    """What comes at once: to the end of the answer, or until a second without a byte."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=HEALTHY)
    connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
    answer, body = connection.getresponse(), b""
    assert answer.status == 200
    with suppress(socket.timeout):
        if connection.sock is not None:
            connection.sock.settimeout(seconds)
        while chunk := answer.read1():
            body += chunk
    connection.close()
    return body


@pytest.mark.parametrize("kind", SERVERS)
def test_a_client_that_writes_the_proxys_headers_learns_nothing(
    site,  # noqa: F811
    unique_channel,
    kind,
):
    """`Grip_Last: events-own-7; last-id=0, user-7; last-id=e0` and no cookie gave the history of
    user 7 and held the channel: the proxy signs each request, whoever wrote what is in it."""
    here = site(kind, **MANAGER)
    own, common = f"own-alice-{unique_channel}", unique_channel
    alice, cookie = make_user("alice"), here.server.log_in("mallory")
    get_storage().append([Event(own, "message", SECRET.decode())])
    last = f"events-{own}; last-id=0, user-{alice.pk}"
    mallorys = proven_last({common: 0}, str(make_user("mallory").pk))
    mallorys_id = mallorys.rpartition("last-id=")[2]
    forged = [
        f"{last}; last-id=e0",
        f"{last}; last-id={mallorys_id}",
        f"{last}; last-id=e0, {mallorys}",
        f"events-{own}; last-id=0, {mallorys}",
    ]
    for path in f"{here.proxy.url}/events/_next/", here.url(common):
        for header in forged:
            for headers in {}, cookie:
                body = first_of(path, {**headers, "Grip_Last": header}, 0.3)
                assert SECRET not in body
                assert not body or (kind == "uvicorn" and path == here.url(common))
    # It is the proof that keeps them out, and not that the header went astray.
    proven = first_of(
        f"{here.proxy.url}/events/_next/", {"Grip_Last": proven_last({own: 0}, str(alice.pk))}
    )
    assert (SECRET in proven) == (kind in CONFLATING)


@pytest.mark.parametrize("kind", CONFLATING)
def test_streams_recover_behind_servers_that_conflate_names(
    site,  # noqa: F811
    unique_channel,
    kind,
):
    here = site(kind, **MANAGER)
    own = f"own-alice-{unique_channel}"
    get_storage().append([Event(own, "message", "x" * 30_000) for _ in range(5)])
    with here.client(own, unique_channel, user="alice", since=f"{own}:0") as client:
        client.wait_for(5)
        wait_until(here.recoveries)
        # One that no proxy hears of: the next shows that it is missing.
        get_storage().append([Event(*numbered(own, [1])[0][:2], '{"n": 1}')])
        send(own, [2])
        client.wait_for(7)
        assert client.ids(own) == list(range(1, 8))
        assert_sequence(client, unique_channel, [])
        assert len(client.connections) == 1
