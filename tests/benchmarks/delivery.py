"""What one delivery of one event to one client costs the server process."""

from __future__ import annotations

import time

from tests.benchmarks.crowd import Crowd
from tests.benchmarks.figures import cpu_seconds, note, show, spread
from tests.benchmarks.stores import store
from tests.services.servers import AppServer

SETTINGS = {
    "ROOT_URLCONF": "tests.benchmarks.burst_urls",
    "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.LooseChannelManager",
}
KINDS = {"stored": "stored in SQLite", "loose": "not stored"}
LANES = {"uvicorn": "plain", "uvicorn+wrapper": "wrapper"}
WARM_UP = 5
DELIVERIES_PER_SECOND = 10_000
SECONDS = 5
BURST = 100_000


def main() -> None:
    for clients in (500, 2_000):
        for lane in LANES:
            for kind in KINDS:
                per_second = DELIVERIES_PER_SECOND / clients
                run(lane, kind, clients, int(per_second * SECONDS), int(per_second * 60))
    for clients in (500, 2_000):
        for lane in LANES:
            for kind in KINDS:
                run(lane, kind, clients, BURST // clients, 0)


def run(lane: str, kind: str, clients: int, count: int, per_minute: int) -> None:
    channel = f"{kind}-benchmark"
    with (
        store("sqlite") as database,
        AppServer(lane, database=database.settings, settings=SETTINGS) as server,
        Crowd(f"{server.url}/events/?channel={channel}", clients) as crowd,
    ):
        send(server, crowd, channel, 1, WARM_UP, 600)
        used = cpu_seconds(server)
        seconds = send(server, crowd, channel, WARM_UP + 1, count, per_minute)
        used = cpu_seconds(server) - used
        crowd.assert_sequence(WARM_UP + count)
        latencies = crowd.latencies(WARM_UP)
    cost = used / clients / count * 1e6
    rate = f"{DELIVERIES_PER_SECOND:,} deliveries/s" if per_minute else "as fast as it goes"
    show(
        "delivery",
        f"{LANES[lane]}, {clients:,} clients, {rate}, {KINDS[kind]}: {cost:.1f} µs CPU per "
        f"delivery, {clients * count / seconds:,.0f} deliveries/s, {spread(latencies)}",
    )
    if per_minute:
        title = f"CPU per delivery, {LANES[lane]}, {clients:,} clients, {rate}, {KINDS[kind]}"
        note(title, cost, "µs")
    else:
        title = f"full speed, {LANES[lane]}, {clients:,} clients, {KINDS[kind]}"
        note(title, clients * count / seconds, "deliveries/s")


def send(
    server: AppServer, crowd: Crowd, channel: str, first: int, count: int, per_minute: int
) -> float:
    """Seconds until the last client has the last event."""
    begin = time.monotonic()
    server.request(f"/burst/{channel}/{first}/{count}/{per_minute}/", timeout=60).read()
    crowd.wait_for_last(first + count - 1)
    return time.monotonic() - begin
