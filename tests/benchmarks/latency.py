"""How long an event of another process takes to a client that this server holds."""

from __future__ import annotations

import statistics

from tests.benchmarks.figures import note, show, spread
from tests.benchmarks.stores import TITLES, new_channel, store
from tests.services.python import run_python
from tests.services.servers import AppServer
from tests.swarm import Swarm
from tests.transcript import assert_sequence

SENDS = 50
WARM_UP = 3
# Not a multiple of the tick, so that sends fall on all parts of it.
PAUSE = 0.137

SEND = """
import sys, time
from django_eventstream import send_event
channel, count, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
for n in range(1, count + 1):
    send_event(channel, "message", {"channel": channel, "n": n, "at": time.monotonic()})
    time.sleep(pause)
"""


def main() -> None:
    for name, way in (("sqlite", "asked every 0.5 s"), ("postgres", "NOTIFY")):
        with (
            store(name) as database,
            AppServer("uvicorn+wrapper", database=database.settings) as server,
        ):
            found = latencies(server, new_channel(), database.settings)
            median = statistics.median(found) * 1e3
            note(f"an event of another process, {way}, median", median, "ms")
            show("latency", f"{TITLES[name]}, {way}, {SENDS} sends: {spread(found)}")


def latencies(server: AppServer, channel: str, database: dict[str, object]) -> list[float]:
    count = WARM_UP + SENDS
    with Swarm([f"{server.url}/events/?channel={channel}"]) as swarm:
        swarm.wait_open()
        run_python(SEND, channel, str(count), str(PAUSE), database=database)
        swarm.wait_for(lambda member: member.has(channel, count))
        [client] = swarm.members
        assert_sequence(client, channel, range(1, count + 1))
        return [arrival.at - arrival.json()["at"] for arrival in client.events[WARM_UP:]]
