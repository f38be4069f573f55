"""One client comes back after a long time: the log is read for it, page by page."""

from __future__ import annotations

import re
import socket
import time
from urllib.parse import urlsplit

from django.utils import timezone

from tests.benchmarks.figures import cpu_seconds, note, show
from tests.benchmarks.stores import TITLES, fill_with_a_million, new_channel, store
from tests.services.servers import AppServer

STORED = 1_000_000
BEHIND = 10_000
TIMES = 5
READ_SIZE = 1 << 20
CHUNK = re.compile(rb"\r\n[0-9a-f]+\r\n")
"""What HTTP writes between two chunks."""
EVENT = re.compile(rb"data: .+\nid: .+:([0-9]+)\n")

LANES = {"uvicorn+wrapper": "wrapper", "uvicorn": "plain"}

# The clock that asks for news is set so slow that only what the replay costs is counted.
NO_CLOCK = {"EVENTSTREAM_POLL_SECONDS": 600, "EVENTSTREAM_POSTGRES_NOTIFY": False}


def main() -> None:
    for name in TITLES:
        with store(name) as database:
            channel = new_channel()
            fill_with_a_million(channel, timezone.now())
            for kind in LANES:
                with AppServer(kind, database=database.settings, settings=NO_CLOCK) as server:
                    measure(server, channel, f"{TITLES[name]}, {LANES[kind]} lane")


def measure(server: AppServer, channel: str, title: str) -> None:
    replay(server, channel)  # the first request of a process loads what Django needs
    before, used = server.stats(), cpu_seconds(server)
    seconds = min(replay(server, channel) for _ in range(TIMES))
    after, used = server.stats(), cpu_seconds(server) - used
    statements = sum(after["log_statements"].values()) - sum(before["log_statements"].values())
    grown = (after["resident_bytes"] - before["resident_bytes"]) / 1024
    note(f"replay of {BEHIND:,} events, {title}", seconds, "s", at_most=0.12)
    note(f"statements of that replay, {title}", statements / TIMES, "", at_most=20)
    show(
        "replay",
        f"{BEHIND:,} events to one client, {STORED:,} stored, {title}: best of {TIMES} "
        f"{seconds:.3f} s, {statements / TIMES:.0f} statements, "
        f"{used / TIMES / BEHIND * 1e6:.1f} µs CPU of the server per event, "
        f"{grown:+.0f} KiB resident",
    )


def replay(server: AppServer, channel: str) -> float:
    """Seconds from the connection to the last event."""
    address = urlsplit(server.url)
    begin = time.monotonic()
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(
            f"GET /events/?channel={channel} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Last-Event-ID: {channel}:{STORED - BEHIND}\r\n\r\n".encode()
        )
        received = bytearray()
        end = f"id: {channel}:{STORED}\n\n".encode()
        while not received.endswith((end, end + b"\r\n")):
            received += connection.recv(READ_SIZE) or stop(received)
        seconds = time.monotonic() - begin
    ids = [int(number) for number in EVENT.findall(CHUNK.sub(b"", received))]
    assert ids == list(range(STORED - BEHIND + 1, STORED + 1)), "events are missing or doubled"
    return seconds


def stop(received: bytearray) -> bytes:
    raise AssertionError(f"the stream ended after {len(received)} bytes: {received[-200:]!r}")
