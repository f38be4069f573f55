"""What an open stream holds: threads, database connections, memory."""

from __future__ import annotations

from tests.benchmarks.crowd import Crowd
from tests.benchmarks.figures import show
from tests.benchmarks.stores import store
from tests.services.databases import Database
from tests.services.servers import AppServer
from tests.transcript import numbered

USER = "benchmark"
CHANNEL = f"private-{USER}"
# It looks at the user, so that the session and the user are really read from the database.
SETTINGS = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager"}


def main() -> None:
    for count in (200, 2_000):
        with store("postgres") as database, server_of(database) as server:
            hold(count, database, server)


def server_of(database: Database) -> AppServer:
    return AppServer("uvicorn", database=database.settings, settings=SETTINGS)


def hold(count: int, database: Database, server: AppServer) -> None:
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
        f"{count:,} logged-in streams, uvicorn, plain get_asgi_application(), PostgreSQL: "
        f"{after['os_threads'] - before['os_threads']} more threads, "
        f"{more} more database connections, {kibibytes:.1f} KiB resident each",
    )
