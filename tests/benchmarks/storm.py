"""Everybody comes back at once, and has missed something: with and without tickets."""

from __future__ import annotations

import time
from collections.abc import Mapping

from django_eventstream import send_events
from tests.benchmarks.crowd import Crowd
from tests.benchmarks.figures import cpu_seconds, note, show
from tests.benchmarks.stores import new_channel, store
from tests.services.servers import AppServer
from tests.sse_client import StreamClient
from tests.transcript import numbered

CLIENTS = 1_000
BEHIND = 50
ROUNDS = 3

# The clock that asks for news is set so slow that only what the storm costs is counted.
NO_CLOCK = {"EVENTSTREAM_POLL_SECONDS": 600, "EVENTSTREAM_POSTGRES_NOTIFY": False}
TICKETS = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.TicketChannelManager"}
HEADERS = {"Accept": "text/event-stream", "Cache-Control": "no-store"}

WRAPPED = "uvicorn+wrapper"

PLAIN = "plain get_asgi_application(), Django is asked"
ASKED = "wrapper, Django is asked"
TICKET = "wrapper, with tickets"
AIMS = {PLAIN: None, ASKED: 2.5, TICKET: 0.5}


def main() -> None:
    with store("postgres") as database:
        channel = new_channel()
        send_events(numbered(channel, range(1, BEHIND + 1)))
        options = {"database": database.settings, "settings": {**NO_CLOCK, **TICKETS}}
        with AppServer("uvicorn", **options) as plain, AppServer(WRAPPED, **options) as wrapped:
            compare(channel, {PLAIN: plain, ASKED: wrapped, TICKET: wrapped}, HEADERS)
        with AppServer(WRAPPED, **options) as wrapped:
            headers = {**HEADERS, **wrapped.log_in("anna")}
            compare(channel, {ASKED: wrapped, TICKET: wrapped}, headers, "logged-in ")


def compare(
    channel: str, servers: Mapping[str, AppServer], headers: Mapping[str, str], who: str = ""
) -> None:
    """Storms of each kind in turn; the least that each has cost counts."""
    costs: dict[str, list[float]] = {title: [] for title in servers}
    for _ in range(ROUNDS):
        for title, server in servers.items():
            costs[title].append(storm(server, channel, title, headers, who))
    for title, found in costs.items():
        aim = {} if who or AIMS[title] is None else {"at_most": AIMS[title]}
        note(f"storm, CPU for each {who}client, {title}", min(found), "ms", **aim)


def storm(
    server: AppServer, channel: str, title: str, headers: Mapping[str, str], who: str
) -> float:
    url = f"{server.url}/events/?channel={channel}"
    cursor = f"{channel}:0"
    if title == TICKET:
        cursor += ticket(url, headers)
    before = sum(server.stats()["log_statements"].values())
    used, begin = cpu_seconds(server), time.monotonic()
    with Crowd(url, CLIENTS, {**headers, "Last-Event-ID": cursor}, at_once=CLIENTS) as crowd:
        crowd.wait_for_last(BEHIND)
        used = cpu_seconds(server) - used
        crowd.assert_sequence(BEHIND)
        last = max(client.times[-1] for client in crowd.clients)
    statements = sum(server.stats()["log_statements"].values()) - before
    cost = used / CLIENTS * 1e3
    show(
        "storm",
        f"{CLIENTS:,} {who}clients, {BEHIND} events behind, PostgreSQL, {title}: all caught up "
        f"after {last - begin:.1f} s, {statements} statements of replay, {cost:.2f} ms CPU each",
    )
    return cost


def ticket(url: str, headers: Mapping[str, str]) -> str:
    """The part of a cursor that a client of this kind is given."""
    with StreamClient(url, headers=headers, reconnect=False) as client:
        cursor = client.wait_open().last_event_id
    _, mark, given = cursor.rpartition(",:")
    assert mark, f"no ticket came: {cursor}"
    return mark + given
