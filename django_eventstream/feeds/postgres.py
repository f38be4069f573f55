"""News of the log by PostgreSQL's LISTEN and NOTIFY."""

from __future__ import annotations

import asyncio
import secrets
from asyncio import FIRST_COMPLETED
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from django.db import connections, router
from psycopg.pq import PGnotify
from psycopg.pq.abc import PGconn

from django_eventstream.conf import PREFIX
from django_eventstream.deadlines import Threads
from django_eventstream.feeds.base import Listener
from django_eventstream.feeds.broker import BrokerFeed
from django_eventstream.models import Event, EventCounter
from django_eventstream.storage.numbering import NOTIFY_CHANNEL
from django_eventstream.transactions import own_thread

GATHER_SECONDS = 0.01
"""News wait for so long: those of a burst become one read of the log, and those of events that
come by another way as well (sent by this process, or through a channel layer) become none. At
once, they overtook the event itself every second time, and it was read for nothing."""

LISTEN = f"LISTEN {NOTIFY_CHANNEL}".encode()
"""Once is enough; again, it is answered and changes nothing."""

UNLISTEN = f"UNLISTEN {NOTIFY_CHANNEL}".encode()

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
        made = await self._threads.call(_connect, CONNECT_SECONDS, _close)
        try:
            await _Ear(made, listener).listen(connected)
        finally:
            _close(made)


class NotHeardError(Exception):
    """The server answers on this connection, and a notification did not come."""

    def __init__(self, alias: str) -> None:
        super().__init__(
            "LISTEN succeeds, and notifications do not arrive, as behind PgBouncer in transaction"
            f" mode. Events of other processes are found every {PREFIX}POLL_SECONDS. Let"
            f" DATABASES[{alias!r}] name PostgreSQL itself or a pooler in session mode, or set"
            f" {PREFIX}POSTGRES_NOTIFY to False"
        )


@dataclass(frozen=True, slots=True)
class _Connected:
    """A connection that listens, if the server says so and nothing is between."""

    connection: psycopg.Connection
    alias: str
    """Of the database, in the settings."""
    table: str
    """Which table of counters is the one of our log."""
    proof: str
    """What is heard as soon as it listens."""


class _Ear:
    """Reads notifications when the socket has some."""

    def __init__(self, made: _Connected, listener: Listener) -> None:
        self._made = made
        self._pgconn: PGconn = made.connection.pgconn
        self._table = made.table
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._proof: asyncio.Future[None] = self._loop.create_future()
        self._news: dict[str, int] = {}
        self._heard_at = self._loop.time()

    async def listen(self, connected: Callable[[], None]) -> None:
        """Return never; raise when the connection fails, or nothing is heard on it."""
        socket = self._pgconn.socket
        self._loop.add_reader(socket, self._read)
        try:
            await self._wait_for_proof()
            connected()
            while not self._failure.done():
                await self._listen_for(SILENCE_SECONDS)
                if self._loop.time() - self._heard_at >= SILENCE_SECONDS:
                    asked_at = self._ask()
                    await self._listen_for(ANSWER_SECONDS)
                    if not self._failure.done():
                        self._require_answer(asked_at)
            self._failure.result()
        finally:
            self._loop.remove_reader(socket)

    async def _wait_for_proof(self) -> None:
        """Wait for the notification that was sent for this, over another connection.

        A pooler answers LISTEN like a server, in a session that is another client's from then on.
        """
        asked_at = self._ask()
        waited_for = {self._proof, self._failure}
        await asyncio.wait(waited_for, timeout=ANSWER_SECONDS, return_when=FIRST_COMPLETED)
        if self._failure.done():
            self._failure.result()
        if not self._proof.done():
            self._require_answer(asked_at)
            with suppress(psycopg.Error):
                # In a pooler's session, if it is the same: nobody listens there from now on.
                self._pgconn.send_query(UNLISTEN)
            raise NotHeardError(self._made.alias)

    async def _listen_for(self, seconds: float) -> None:
        await asyncio.wait({self._failure}, timeout=seconds)

    def _ask(self) -> float:
        """Ask for a sign of life; return when."""
        self._pgconn.send_query(LISTEN)
        return self._loop.time()

    def _require_answer(self, asked_at: float) -> None:
        if self._heard_at < asked_at:
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
        text = notification.extra.decode(errors="replace")
        if text == self._made.proof:
            if not self._proof.done():
                self._proof.set_result(None)
            return
        place, _, channel = text.partition(":")
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


def _connect() -> _Connected:
    """Open a connection with Django's settings of the log's database, and listen."""
    own_thread()
    alias = router.db_for_write(Event)
    wrapper = connections.create_connection(alias)
    options = {**CONNECTION_OPTIONS, **wrapper.settings_dict["OPTIONS"]}
    wrapper.settings_dict = {**wrapper.settings_dict, "OPTIONS": options}
    # Not by the wrapper: it may have a pool, where one that is kept for good would be missing, and
    # give something that only behaves like a connection.
    parameters = {**wrapper.get_connection_params(), "autocommit": True}
    connection = psycopg.connect(**parameters)
    try:
        connection.execute(LISTEN)
        return _Connected(connection, alias, *_find_table_and_notify(alias))
    except BaseException:
        connection.close()
        raise


def _find_table_and_notify(alias: str) -> tuple[str, str]:
    """Return PostgreSQL's number of the table of counters, and a proof that was notified.

    The number is empty if there is no table yet. It is asked for in the way in which hubs read the
    log: what makes Django's connections may choose a schema for each statement. To other processes
    the proof says that a channel, of which nobody has heard, has no event.
    """
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s)::oid", [EventCounter._meta.db_table])
            [number] = cursor.fetchone()
            table = str(number or "")
            proof = f"{table}.0:{secrets.token_hex(8)}"
            cursor.execute("SELECT pg_notify(%s, %s)", [NOTIFY_CHANNEL, proof])
    finally:
        connections[alias].close()
    return table, proof


def _close(made: _Connected) -> None:
    made.connection.close()
