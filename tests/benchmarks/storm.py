"""Everybody comes at once, and has missed something."""

from __future__ import annotations

import time

from django_eventstream import send_events
from tests.benchmarks.crowd import Crowd
from tests.benchmarks.figures import cpu_seconds, show
from tests.benchmarks.stores import new_channel, store
from tests.services.servers import AppServer
from tests.transcript import numbered

CLIENTS = 1_000
BEHIND = 50

# The clock that asks for news is set so slow that only what the storm costs is counted.
NO_CLOCK = {"EVENTSTREAM_POLL_SECONDS": 600, "EVENTSTREAM_POSTGRES_NOTIFY": False}


def main() -> None:
    with store("postgres") as database:
        channel = new_channel()
        send_events(numbered(channel, range(1, BEHIND + 1)))
        with AppServer("uvicorn", database=database.settings, settings=NO_CLOCK) as server:
            storm(server, channel)


def storm(server: AppServer, channel: str) -> None:
    used, begin = cpu_seconds(server), time.monotonic()
    url = f"{server.url}/events/?channel={channel}"
    headers = {"Last-Event-ID": f"{channel}:0"}
    with Crowd(url, CLIENTS, headers, at_once=CLIENTS) as crowd:
        crowd.wait_for_last(BEHIND)
        used = cpu_seconds(server) - used
        crowd.assert_sequence(BEHIND)
        last = max(client.times[-1] for client in crowd.clients)
    statements = sum(server.stats()["log_statements"].values())
    show(
        "storm",
        f"{CLIENTS:,} clients, {BEHIND} events behind, PostgreSQL with 100 connections: "
        f"all caught up after {last - begin:.1f} s, {statements} statements of replay, "
        f"{used / CLIENTS * 1e3:.2f} ms CPU of the server per client",
    )
