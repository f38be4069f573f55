"""News of the log by PostgreSQL's LISTEN and NOTIFY."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
from django.db import connections, router
from psycopg.pq import PGnotify
from psycopg.pq.abc import PGconn

from django_eventstream.deadlines import Threads
from django_eventstream.feeds.base import Listener
from django_eventstream.feeds.broker import BrokerFeed
from django_eventstream.models import Event, EventCounter
from django_eventstream.storage.numbering import NOTIFY_CHANNEL

GATHER_SECONDS = 0.01
"""News wait for so long: those of a burst become one read of the log, and those of events that
come by another way as well (sent by this process, or through a channel layer) become none. At
once, they overtook the event itself every second time, and it was read for nothing."""

LISTEN = f"LISTEN {NOTIFY_CHANNEL}".encode()
"""Once is enough; again, it is answered and changes nothing."""

CONNECT_SECONDS = 15.0
"""How long connecting may take in all."""

PAUSES = (0, 0, 1, 15)
"""So many attempts may hang; see `Threads`."""

SILENCE_SECONDS = 10.0
"""After so much of it the server is asked whether it is still there."""

ANSWER_SECONDS = 5.0
"""How long it may take to say so. One that is frozen, or behind a proxy that is, says nothing, and
its system goes on to answer keep-alives."""

CONNECTION_OPTIONS = {
    "connect_timeout": 10,
    # A server that vanishes without a word is noticed within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""Those of the project go first."""


class PostgresFeed(BrokerFeed):
    """Listens on one connection per event loop, without a thread."""

    name = "PostgreSQL"

    def __init__(self) -> None:
        self._threads = Threads("eventstream-listen", PAUSES)

    async def listen(self, listener: Listener, connected: Callable[[], None]) -> None:
        """See `BrokerFeed.listen()`."""
        connection, table = await self._threads.call(_connect, CONNECT_SECONDS, _close)
        try:
            connected()
            await _Ear(connection.pgconn, table, listener).listen()
        finally:
            connection.close()


class _Ear:
    """Reads notifications when the socket has some."""

    def __init__(self, pgconn: PGconn, table: str, listener: Listener) -> None:
        self._pgconn = pgconn
        self._table = table
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._news: dict[str, int] = {}
        self._heard_at = self._loop.time()

    async def listen(self) -> None:
        """Return never; raise when the connection fails."""
        socket = self._pgconn.socket
        self._loop.add_reader(socket, self._read)
        try:
            while not self._failure.done():
                await self._listen_for(SILENCE_SECONDS)
                if self._loop.time() - self._heard_at >= SILENCE_SECONDS:
                    await self._ask()
            self._failure.result()
        finally:
            self._loop.remove_reader(socket)

    async def _listen_for(self, seconds: float) -> None:
        await asyncio.wait({self._failure}, timeout=seconds)

    async def _ask(self) -> None:
        """Ask for a sign of life, and wait for one."""
        asked_at = self._loop.time()
        self._pgconn.send_query(LISTEN)
        await self._listen_for(ANSWER_SECONDS)
        if not self._failure.done() and self._heard_at < asked_at:
            raise TimeoutError("no sign of life")

    def _read(self) -> None:
        try:
            self._pgconn.consume_input()
            self._heard_at = self._loop.time()
            while not self._pgconn.is_busy() and self._pgconn.get_result():
                pass  # It is the sign of life that counts.
            while (notification := self._pgconn.notifies()) is not None:
                self._hear(notification)
        except psycopg.Error as error:
            if not self._failure.done():
                self._failure.set_exception(error)

    def _hear(self, notification: PGnotify) -> None:
        place, _, channel = notification.extra.decode(errors="replace").partition(":")
        table, _, number = place.rpartition(".")
        if table and self._table and table != self._table:
            return  # Another log's, in another schema.
        is_ours = table and self._table
        if not (is_ours and channel and number.isascii() and number.isdecimal()):
            # Of another version of this package, during a deploy; or nobody knows whose.
            self._listener.look()
            return
        if not self._news:
            self._loop.call_later(GATHER_SECONDS, self._pass_on)
        self._news[channel] = max(int(number), self._news.get(channel, 0))

    def _pass_on(self) -> None:
        news, self._news = self._news, {}
        for channel, last_id in news.items():
            self._listener.hint(channel, last_id)


_Connected = tuple[psycopg.Connection, str]
"""Where to listen, and which table of counters is the one of our log."""


def _connect() -> _Connected:
    """Open a connection with Django's settings of the log's database, and listen."""
    alias = router.db_for_write(Event)
    table = _find_table(alias)
    wrapper = connections.create_connection(alias)
    options = {**CONNECTION_OPTIONS, **wrapper.settings_dict["OPTIONS"]}
    # One that is kept for good would be missing in a pool.
    options.pop("pool", None)
    wrapper.settings_dict = {**wrapper.settings_dict, "OPTIONS": options}
    connection: psycopg.Connection = wrapper.get_new_connection(wrapper.get_connection_params())
    try:
        connection.autocommit = True
        connection.execute(LISTEN)
    except BaseException:
        connection.close()
        raise
    return connection, table


def _find_table(alias: str) -> str:
    """Return PostgreSQL's number of the table of counters; empty if there is none yet.

    Asked for in the way in which hubs read the log: what makes Django's connections may choose a
    schema for each statement.
    """
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s)::oid", [EventCounter._meta.db_table])
            [number] = cursor.fetchone()
    finally:
        connections[alias].close()
    return str(number or "")


def _close(connected: _Connected) -> None:
    connection, _ = connected
    connection.close()
