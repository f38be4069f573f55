"""Ten clients that do not read, among five hundred that do."""

from __future__ import annotations

from contextlib import ExitStack

from django_eventstream import send_events
from django_eventstream.conf import settings
from tests.benchmarks.crowd import Crowd
from tests.benchmarks.figures import note, show, spread
from tests.benchmarks.stores import new_channel, store
from tests.services.databases import Database
from tests.services.servers import AppServer
from tests.sse_client import StreamClient

SETTINGS = {"ROOT_URLCONF": "tests.benchmarks.burst_urls"}
CLIENTS = 500
SLOW = 10
WARM_UP = 5
EVENTS = 100
PER_MINUTE = 20 * 60
HEAVY = 2_000
TEXT = "x" * 10_000
MEGABYTES = HEAVY * len(TEXT) / 1e6


def main() -> None:
    runs = [(slow, *run(slow)) for slow in (0, SLOW) * 2]
    p99, grown = ({n: min(r[k] for r in runs if r[0] == n) for n in (0, SLOW)} for k in (1, 2))
    without = f"without them {p99[0]:.1f} ms"
    title = f"p99 of {CLIENTS} clients, {SLOW} among them do not read"
    note(title, p99[SLOW], "ms", at_most=1.2 * p99[0], peer=without)
    # What is being sent, what was read from the log to follow it, and the server's own buffer.
    allowed = grown[0] + SLOW * 3 * settings.BACKLOG_BYTES / 1e6
    without = f"without them {grown[0]:.1f} MB"
    title = f"memory, {SLOW} clients do not read {MEGABYTES:.0f} MB each"
    note(title, grown[SLOW], "MB", at_most=allowed, peer=without)


def run(slow: int) -> tuple[float, float]:
    """The 99th percentile of the latency of those who read, in ms, and the growth in MB."""
    channel, heavy = new_channel(), new_channel()
    with (
        store("sqlite") as database,
        AppServer("uvicorn+wrapper", database=database.settings, settings=SETTINGS) as server,
        Crowd(f"{server.url}/events/?channel={channel}", CLIENTS) as crowd,
        ExitStack() as stack,
    ):
        url = f"{server.url}/events/?channel={channel}&channel={heavy}"
        for _ in range(slow):
            client = stack.enter_context(StreamClient(url, receive_buffer=4_096, reconnect=False))
            client.wait_open().pause()
        grown = overfill(server, database, heavy)
        burst(server, channel, 1, WARM_UP)
        crowd.wait_for_last(WARM_UP)
        burst(server, channel, WARM_UP + 1, EVENTS)
        crowd.wait_for_last(WARM_UP + EVENTS)
        crowd.assert_sequence(WARM_UP + EVENTS)
        found = sorted(crowd.latencies(WARM_UP))
    show(
        "slow",
        f"{CLIENTS} clients, and {slow} that do not read {MEGABYTES:.0f} MB each: memory grew by "
        f"{grown:.1f} MB, 10,000 deliveries/s to the others: {spread(found)}",
    )
    return found[len(found) * 99 // 100] * 1e3, grown


def overfill(server: AppServer, database: Database, channel: str) -> float:
    """Megabytes by which the process grows when more is sent than anybody's buffers hold."""
    with StreamClient(f"{server.url}/events/?channel={channel}") as reader:
        reader.wait_open()
        before = server.stats()["resident_bytes"]
        with database.as_default():
            for _ in range(HEAVY // 100):
                send_events([(channel, "message", TEXT)] * 100)
        reader.wait_for(HEAVY, timeout=60)
        return (server.stats()["resident_bytes"] - before) / 1e6


def burst(server: AppServer, channel: str, first: int, count: int) -> None:
    server.request(f"/burst/{channel}/{first}/{count}/{PER_MINUTE}/", timeout=60).read()
