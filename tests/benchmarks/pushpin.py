"""Clients behind Pushpin, each on a channel of its own and on a common one."""

from __future__ import annotations

import statistics
import time

from django.test.utils import override_settings

from django_eventstream import send_event, send_events
from tests.benchmarks.figures import note, show, spread
from tests.benchmarks.stores import new_channel, store
from tests.proxied import RECOVERY
from tests.services.deadline import wait_until
from tests.services.ports import free_port
from tests.services.pushpin import Pushpin, route_to
from tests.services.servers import AppServer
from tests.settings import MIDDLEWARE
from tests.swarm import Swarm
from tests.transcript import assert_sequence, numbered

CLIENTS = 200
SENDS = 20


def main() -> None:
    port = free_port()
    with store("sqlite") as database, Pushpin([route_to(port)]) as proxy:
        settings = {
            "GRIP_URL": proxy.grip_url,
            "MIDDLEWARE": [*MIDDLEWARE, "tests.proxied.TellRecoveries"],
        }
        server = AppServer("gunicorn", database=database.settings, settings=settings, port=port)
        with override_settings(**settings), server:
            common(proxy, server)


def common(proxy: Pushpin, server: AppServer) -> None:
    channel, own = new_channel(), [new_channel() for _ in range(CLIENTS)]
    urls = [f"{proxy.url}/events/?channel={channel}&channel={name}" for name in own]
    numbers = range(1, SENDS + 1)
    with Swarm(urls) as swarm:
        swarm.wait_open(60)
        # Each connection asks once, about a second after its channel has come up.
        wait_until(lambda: server.log_text().count(RECOVERY) >= CLIENTS, 60)
        seconds = [seconds_to_the_last(swarm, channel, number) for number in numbers]
        send_events([event for name in own for event in numbered(name, [1])])
        swarm.wait_for(SENDS + 1)
        for member, name in zip(swarm.members, own, strict=True):
            assert_sequence(member, channel, numbers)
            assert_sequence(member, name, [1])
    median = statistics.median(seconds) * 1e3
    note(f"an event to the last of {CLIENTS} clients behind Pushpin, median", median, "ms")
    show(
        "pushpin",
        f"{CLIENTS} clients on a channel of their own and a common one: the common event has "
        f"reached the last one after {spread(seconds)} ({SENDS} sends)",
    )


def seconds_to_the_last(swarm: Swarm, channel: str, number: int) -> float:
    begin = time.monotonic()
    send_event(*numbered(channel, [number])[0])
    swarm.wait_for(lambda member: member.has(channel, number))
    return max(member.events[-1].at for member in swarm.members) - begin
