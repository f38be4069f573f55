"""Requests that nobody should send, as hypothesis makes them, and a reader of the answers."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import quote

from hypothesis import strategies as st

from tests.proxied import MembersOnly

CHANNELS = ("open", "own-alice", "own-bob", "staff-room", "loose-talk", "own-alice,%5")
USERS = ("alice", "bob", "carol")
STAFF = "carol"
SECRET = "secret-of-{}-"
_SECRETS = re.compile(rb"secret-of-([a-z,%5-]+?)-\d")

READ_SECONDS = 0.25
"""An answer is read for so long: live events come every 20 ms."""
SILENCE_SECONDS = 8.0
"""By then a server has answered something, or it hangs."""


class Guarded(MembersOnly):
    """Channels for one user, for staff, and for all; tickets for everybody."""

    def get_ticket_seconds(self, user, channels) -> int:
        return 60


def may_read(user: str, channel: str) -> bool:
    """Whether this user, or nobody (""), may see the secrets of a channel."""
    if channel.startswith("own-"):
        return channel.split("-")[1].partition(",")[0] == user
    return not channel.startswith("staff-") or user == STAFF


@dataclass(frozen=True)
class Request:
    """One request, byte by byte ours: no library puts it right."""

    target: str
    """Which of the servers."""
    user: str
    """Whose cookies it brings; "" brings none."""
    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def encode(self, cookie: str) -> bytes:
        url = self.path + (f"?{self.query}" if self.query else "")
        lines = [f"{self.method} {url} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += [f"Cookie: {cookie}"] if cookie else []
        # A proxy does not pass on a HEAD with a body.
        body = b"" if self.method == "HEAD" else self.body
        lines += [f"Content-Length: {len(body)}"] if body else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace") + body


@dataclass
class Answer:
    """What came back, headers and all."""

    request: Request
    received: bytes = b""
    fault: str = ""

    @property
    def status(self) -> int:
        found = re.match(rb"HTTP/1\.[01] (\d{3})", self.received)
        return int(found[1]) if found else 0

    @property
    def leaks(self) -> set[str]:
        """Channels whose secrets it has, and its user may not read."""
        seen = {name.decode() for name in _SECRETS.findall(self.received)}
        return {name for name in seen if not may_read(self.request.user, name)}


EVERYTHING = Request("wrapper", "", "GET", "/events/", "channel=open", (), b"")
_TICKET = re.compile(r"^id: (\S+,:[0-9A-Za-z_-]{40,})$", re.M)
_Kind = TypeVar("_Kind", str, Request)


def _with_ticket(request: Request, cursor: str) -> Request:
    headers = [pair for pair in request.headers if pair[0].lower() != "last-event-id"]
    return replace(request, headers=(*headers, ("Last-Event-ID", cursor)))


@dataclass
class Loot:
    """What answers gave away: cursors, tickets, links and GRIP headers, whoever got them."""

    cursors: list[str] = field(default_factory=lambda: ["open:0"])
    paths: list[str] = field(default_factory=lambda: ["/events/_next/"])
    positions: list[str] = field(default_factory=lambda: ["user-anonymous; last-id=e0"])
    returns: list[Request] = field(default_factory=lambda: [EVERYTHING])
    """Requests that got a ticket, and bring it."""

    def take(self, answer: Answer) -> None:
        text = answer.received.decode("latin-1")
        self._add(self.returns, [_with_ticket(answer.request, t) for t in _TICKET.findall(text)])
        self._add(self.cursors, re.findall(r"^id: (\S+)", text, re.M)[-1:])
        self._add(self.paths, re.findall(r"^Grip-Link: <([^>]+)>", text, re.M | re.I))
        for header in re.findall(r"^Grip-Channel: (.+?)\r", text, re.M | re.I):
            self._add(self.positions, [_as_last(header)])

    def _add(self, kind: list[_Kind], found: Sequence[_Kind]) -> None:
        kind += [each for each in found if each not in kind]
        del kind[1:-40]


def _as_last(header: str) -> str:
    """A `Grip-Channel` as a proxy would say it back."""
    parts = (part.split(";") for part in header.split(","))
    named = ((name.strip(), re.search(r"prev-id=([^;]*)", ";".join(rest))) for name, *rest in parts)
    return ", ".join(f"{name}; last-id={found[1]}" for name, found in named if found)


def send_all(
    requests: Sequence[Request], ports: Mapping[str, int], cookies: Mapping[str, str]
) -> list[Answer]:
    """Sends them at the same time; proxies and caches merge what looks alike."""
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(
            pool.map(lambda r: _send(r, ports[r.target], cookies.get(r.user, "")), requests)
        )


def _send(request: Request, port: int, cookie: str) -> Answer:
    answer = Answer(request)
    end = time.monotonic() + SILENCE_SECONDS
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request.encode(cookie))
        while (left := end - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                data = connection.recv(65_536)
            except TimeoutError:
                break
            if not data:
                return answer
            if not answer.received:
                end = time.monotonic() + READ_SECONDS
            answer.received += data
    if not answer.received:
        answer.fault = f"no byte in {SILENCE_SECONDS} s"
    return answer


# What to send

AS_PROXY = ("Grip-Feature", "link:next, filter:build-id")
"""What a proxy without a key is known by."""

_PRINTABLE = st.characters(
    min_codepoint=33, max_codepoint=255, exclude_characters="\x7f\x85\xa0\xad"
)
_WORD = st.text(_PRINTABLE, max_size=12)
_NAME = st.one_of(
    st.sampled_from(CHANNELS),
    st.sampled_from(["__eventstream__", "OWN-ALICE", "own-alice\x00", "*", "", "own-alice;", " "]),
    _WORD,
)
_NUMBER = st.one_of(
    st.sampled_from(["0", "1", "3", "999999", "-1", "00", "", "e0", "9" * 40]),
    st.integers(0, 20).map(str),
)
_STATE = st.one_of(_NUMBER, st.sampled_from(["e0", "e0+loose-talk", "e0~x", "e1"]))
_OWNER = st.sampled_from(["user-1", "user-2", "user-3", "user-anonymous"])
_LIKELY_HELD = st.lists(
    st.tuples(st.sampled_from(CHANNELS), st.sampled_from(["0", "1"])), min_size=1, max_size=2
)
_HELD = st.lists(st.tuples(_NAME, _NUMBER), max_size=3)


def _as_grip_last(held: Sequence[tuple[str, str]], owners: Sequence[str], state: str) -> str:
    channels = [(f"events-{quote(name)}", number) for name, number in held]
    channels += [(owner, state) for owner in owners]
    return ", ".join(f"{name}; last-id={at}" for name, at in channels)


_LAST = st.one_of(
    st.builds(_as_grip_last, _LIKELY_HELD, st.tuples(_OWNER), st.just("e0")),
    st.builds(_as_grip_last, _LIKELY_HELD, st.tuples(_OWNER), st.just("e0")),
    st.builds(_as_grip_last, _HELD, st.lists(_OWNER, max_size=2), _STATE),
)
_METHODS = st.sampled_from(
    ["GET"] * 12 + ["HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"]
)
_ACCEPTS = st.sampled_from(
    ["text/event-stream", "*/*", "text/html", "application/json", "text/event-stream;q=0", ""]
)


def _one_of(loot: Sequence[_Kind]) -> st.SearchStrategy[_Kind]:
    """Whatever is there when it is drawn."""
    return st.integers(0, 1_000).map(lambda number: loot[-1 - number % len(loot)])


def ask_for(
    target: str, user: str, channel: str, more: tuple[tuple[str, str], ...] = ()
) -> Request:
    """A client's usual request, for all that is kept."""
    query = f"channel={quote(channel)}&lastEventId={quote(channel)}:0"
    headers = (("Accept", "text/event-stream"), *more)
    return Request(target, user, "GET", "/events/", query, headers, b"")


def requests(targets: Sequence[str], loot: Loot, signatures: Sequence[str]) -> st.SearchStrategy:
    """Requests to these servers, of three users and of nobody, that use what others were given."""
    cursor = st.one_of(
        _one_of(loot.cursors),
        st.lists(st.tuples(_NAME, _NUMBER), min_size=1, max_size=4).map(
            lambda rows: ",".join(f"{quote(name)}:{number}" for name, number in rows)
        ),
        st.sampled_from(["error", ",:1", ":0", "own-alice:0,:99", "own-alice:0,:ticket.ticket"]),
        _WORD,
    )
    position = st.one_of(_one_of(loot.positions), _LAST, _LAST)
    header = st.one_of(
        st.tuples(st.sampled_from(["Last-Event-ID", "Last_Event_ID"]), cursor),
        st.tuples(st.sampled_from(["Grip-Last", "Grip_Last", "GRIP_LAST", "grip_last"]), position),
        st.tuples(
            st.sampled_from(["Grip-Sig", "Grip_Sig"]), st.sampled_from([*signatures, "x", "a.b.c"])
        ),
        st.just(AS_PROXY),
        st.tuples(st.just("Accept"), _ACCEPTS),
        st.tuples(st.sampled_from(["If-None-Match", "If-Match"]), st.sampled_from(["*", '"x"'])),
        st.tuples(st.just("If-Modified-Since"), st.just("Thu, 01 Jan 2099 00:00:00 GMT")),
        st.tuples(st.just("Range"), st.just("bytes=0-10")),
        st.tuples(st.just("Authorization"), st.sampled_from(["Bearer x", "Basic x", "Name alice"])),
        st.tuples(st.just("Origin"), st.sampled_from(["https://elsewhere.example", "null"])),
        st.tuples(st.just("Accept-Encoding"), st.sampled_from(["gzip", "br, gzip", "*"])),
        st.tuples(st.just("X-Forwarded-For"), st.just("10.0.0.1")),
        st.tuples(st.just("X-HTTP-Method-Override"), st.just("GET")),
    )
    parameter = st.one_of(
        st.tuples(st.just("channel"), _NAME),
        st.tuples(st.sampled_from(["lastEventId", "Last-Event-ID"]), cursor),
        st.tuples(st.just("channels"), st.lists(_NAME, max_size=3).map(",".join)),
        st.sampled_from([("link", "next"), ("recover", "true"), ("es-meta", "e30.e30.x")]),
        st.sampled_from(
            [("format", "json"), ("format", "api_sse"), ("format", "text/event-stream")]
        ),
        st.tuples(_WORD, _WORD),
    )
    path = st.one_of(
        st.just("/events/"),
        st.sampled_from(["/events/_next/", "/events/_next/x/", "/events/_next/e30:x/", "/events"]),
        _one_of(loot.paths),
        _NAME.map(lambda name: f"/rooms/{quote(name, safe='')}/"),
        _NAME.map(lambda name: f"/api/events/{quote(name, safe='')}/"),
        st.sampled_from(["/api/events/", "/api/private/", "/rooms/a/_next/", "/own/"]),
        _WORD.map(lambda word: f"/events/{quote(word, safe='')}"),
    )
    anything = st.builds(
        Request,
        target=st.sampled_from(targets),
        user=st.sampled_from(["", *USERS]),
        method=_METHODS,
        path=path,
        query=st.lists(parameter, max_size=4).map(
            lambda rows: "&".join(f"{quote(name)}={quote(value)}" for name, value in rows)
        ),
        headers=st.lists(header, max_size=4).map(tuple),
        body=st.sampled_from([b"", b"", b"", b"{}", b"channel=own-alice", b"\xff" * 40]),
    )
    # What a proxy asks for the connections that it holds, as well as a client can say it.
    recovery = st.builds(
        Request,
        target=st.sampled_from(targets),
        user=st.sampled_from(["", *USERS]),
        method=st.just("GET"),
        path=st.one_of(st.sampled_from(["/events/_next/", "/events/"]), _one_of(loot.paths)),
        query=st.just(""),
        headers=st.tuples(
            st.tuples(st.sampled_from(["Grip-Last", "Grip_Last"]), position), st.just(AS_PROXY)
        ),
        body=st.just(b""),
    )
    # With the ticket of somebody else, and all that the ticket is for but the cookies.
    returning = st.builds(replace, _one_of(loot.returns), user=st.sampled_from(["", *USERS]))
    # So that there are tickets, and positions that are proven.
    ordinary = st.builds(
        ask_for,
        st.sampled_from(targets),
        st.sampled_from(USERS),
        st.sampled_from(CHANNELS),
        st.sampled_from([(), (AS_PROXY,)]),
    )
    return st.one_of(anything, recovery, returning, ordinary)
