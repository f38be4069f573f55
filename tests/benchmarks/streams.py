"""What an open stream holds: threads, database connections, memory."""

from __future__ import annotations

from tests.benchmarks.crowd import Crowd
from tests.benchmarks.figures import note, show
from tests.benchmarks.stores import store
from tests.services.databases import Database
from tests.services.servers import AppServer
from tests.transcript import numbered

LANES = {"uvicorn": "plain get_asgi_application()", "uvicorn+wrapper": "wrapper"}
MOST_KIBIBYTES = {"uvicorn": 32, "uvicorn+wrapper": 14}
COUNTS = (200, 2_000)
USER = "benchmark"
CHANNEL = f"private-{USER}"
# It looks at the user, so that the session and the user are really read from the database.
SETTINGS = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager"}


def main() -> None:
    for count in COUNTS:
        for lane in LANES:
            with store("postgres") as database, server_of(lane, database) as server:
                hold(lane, count, database, server)


def server_of(lane: str, database: Database) -> AppServer:
    return AppServer(lane, database=database.settings, settings=SETTINGS)


def hold(lane: str, count: int, database: Database, server: AppServer) -> None:
    headers = server.log_in(USER)
    url = f"{server.url}/events/?channel={CHANNEL}"
    with Crowd(url, 1, headers) as first:
        # The hub's own thread and its two connections are there from the first stream on.
        before, connections = server.stats(), database.open_connections()
        with Crowd(url, count, headers) as crowd:
            after, more = server.stats(), database.open_connections() - connections
            server.send(*numbered(CHANNEL, [1]))
            for each in (first, crowd):
                each.wait_for_last(1)
                each.assert_sequence(1)
    kibibytes = (after["resident_bytes"] - before["resident_bytes"]) / 1024 / count
    show(
        "streams",
        f"{count:,} logged-in streams, uvicorn, {LANES[lane]}, PostgreSQL: "
        f"{after['os_threads'] - before['os_threads']} more threads, "
        f"{more} more database connections, {kibibytes:.1f} KiB resident each",
    )
    if count == max(COUNTS):
        of = f"{count:,} idle streams, {LANES[lane]}"
        note(f"memory of each of {of}", kibibytes, "KiB", at_most=MOST_KIBIBYTES[lane])
        note(f"threads of {of}", after["os_threads"] - before["os_threads"], "", at_most=0)
        note(f"database connections of {of}", more, "", at_most=0)
