"""A project swaps django-eventstream 5.3.4 for this package, and goes back: with the real thing.

The predecessor comes from the package index, into a virtual environment of its own.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.services.databases import Database
from tests.services.deadline import wait_until
from tests.services.ports import free_port
from tests.services.predecessor import OldServer, Predecessor
from tests.services.python import manage, run_python
from tests.settings import sqlite
from tests.sse_client import StreamClient, assert_sequence, numbered, positions

# The first test may have to install the predecessor.
pytestmark = pytest.mark.timeout(900)

APP = "django_eventstream"
NAMES = ["plain", "user:5", "a,b c", "100%", "café/💥", "x" * 255, "ä" * 255]
"""Names that a cursor, a proxy or a URL has to quote."""

FILL = """
from django_eventstream import get_current_event_id, send_event
from django_eventstream.models import EventCounter
for n in range(3):
    for name in NAMES:
        send_event(name, "message", {"n": n, "text": "ü\\n💥 100% \\u2028"})
send_event("plain", "update", "ready: 'text'\\nof two lines", json_encode=False)
send_event("plain", "update", "", json_encode=False)
EventCounter.get_or_create("quiet")
print(json.dumps(get_current_event_id([*NAMES, "quiet", "never"])))
"""

SEND = """
import json, sys
from django_eventstream import send_event
for channel, kind, data in json.loads(sys.argv[1]):
    print(send_event(channel, kind, data, skip_user_ids=[7]).id)
"""

ROWS = """
from django_eventstream.models import Event, EventCounter
fields = ["channel", "type", "data", "eid"]
events = list(Event.objects.order_by("id").values_list(*fields))
print(json.dumps([events, list(EventCounter.objects.order_by("id").values_list("name", "value"))]))
"""


class Site:
    """A database that 5.3.4 made, and servers of both on one port."""

    def __init__(self, old: Predecessor, kind: str, database: dict, server=None) -> None:
        self.old, self.kind, self.database, self.server = old, kind, database, server
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/events/?"

    def fill(self) -> str:
        return self.old.shell(f"NAMES = {NAMES!r}\n{FILL}", database=self.database)

    def rows(self) -> list:
        return self.old.shell(ROWS, database=self.database)

    def migrate(self, *arguments: str) -> None:
        """With our package."""
        manage("migrate", *arguments, "--verbosity", "0", database=self.database)

    def send(self, *events: tuple) -> list[int]:
        """From a process of our package."""
        printed = run_python(SEND, json.dumps(events), database=self.database)
        return [int(line) for line in printed.split()]

    def schema(self) -> object:
        """Of our two tables, as the database itself tells it."""
        return SCHEMA_OF[self.kind](self.database["NAME"], self.server)


def sqlite_schema(name: str, server: None) -> object:
    found = []
    with closing(sqlite3.connect(name)) as connection:
        for table in (f"{APP}_event", f"{APP}_eventcounter"):
            # The order of columns is not kept, and means nothing.
            columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
            found.append(sorted(column[1:] for column in columns))
            indexes = connection.execute(f"PRAGMA index_list({table})").fetchall()
            for _, index, unique, origin, _ in indexes:
                named = connection.execute(f"PRAGMA index_info({index})").fetchall()
                named_so = "" if index.startswith("sqlite_") else index
                found.append([table, named_so, unique, origin, [name for *_, name in named]])
    return sorted(found, key=repr)


def postgres_schema(name: str, server) -> object:
    dumped = server.run(
        "pg_dump", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "--schema-only",
        "-t", f"{APP}_*", name,
    )  # fmt: skip
    # Each dump locks itself with a word of its own.
    return [line for line in dumped.splitlines() if not re.match(r"\\(un)?restrict ", line)]


def mariadb_schema(name: str, server) -> object:
    tables = [f"{APP}_event", f"{APP}_eventcounter"]
    shown = [server.sql(f"SHOW CREATE TABLE {table}", name) for table in tables]
    # Keys are listed in the order in which they were made.
    lines = [re.sub(r" AUTO_INCREMENT=\d+", "", text).split("\\n") for text in shown]
    return [sorted(line.rstrip(",") for line in table) for table in lines]


SCHEMA_OF = {"sqlite": sqlite_schema, "postgres": postgres_schema, "mariadb": mariadb_schema}


@pytest.fixture(scope="session")
def predecessor(request) -> Predecessor:
    return Predecessor.install(Path(request.config.cache.mkdir("predecessor")))


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def site(request, predecessor, tmp_path) -> Site:
    return make_site(request, predecessor, tmp_path, request.param)


@pytest.fixture
def sqlite_site(request, predecessor, tmp_path) -> Site:
    return make_site(request, predecessor, tmp_path, "sqlite")


def make_site(request, predecessor: Predecessor, tmp_path: Path, kind: str) -> Site:
    if kind == "sqlite":
        made = Site(predecessor, kind, sqlite(str(tmp_path / "site.sqlite3")))
    else:
        server = request.getfixturevalue(kind)
        name = f"upgrade_{secrets.token_hex(4)}"
        server.create_database(name)
        made = Site(predecessor, kind, server.django_settings(name), server)
    predecessor.manage("migrate", "--verbosity", "0", database=made.database)
    return made


HELPERS = """if True:
    import datetime, json, warnings
    warnings.simplefilter("ignore")
    from django_eventstream import utils
    from django_eventstream.storage import DjangoModelStorage
    path = "django_eventstream.storage.DjangoModelStorage"
    storage = DjangoModelStorage()
    data = ["text", {"a": [1, None]}, 5, None, "5", "\\t \\t", ["\\t"]]
    appended = [storage.append_event("CHANNEL", "message", each) for each in data]
    found = storage.get_events("CHANNEL", 1, limit=50)
    values = lambda events: [(event.type, event.data, event.id) for event in events]
    print(json.dumps({
        "appended": values(appended),
        "found": values(found),
        "limited": values(storage.get_events("CHANNEL", 2, 2)),
        "current": storage.get_current_id("CHANNEL"),
        "events": [
            utils.sse_encode_event("a", "x\\r\\ny"),
            utils.sse_encode_event("50%", "50%", "%I", True),
            utils.sse_encode_event("message", {"at": datetime.date(2026, 1, 2)}, 7, False, True),
            utils.sse_encode_event("a", 5, event_id=""),
            utils.sse_encode_event("a\\nb", "", event_id="1\\n2"),
        ],
        "errors": [
            utils.sse_encode_error("forbidden", "No."),
            utils.sse_encode_error("forbidden", "No.", {"at": datetime.date(2026, 1, 2)}),
            utils.sse_error_response("gone", "No.", extra={"a": 1}).content.decode(),
        ],
        "cursors": [utils.make_id({"user:5": 1, "b c": "2"}), utils.make_id({})],
        "parsed": utils.parse_last_event_id("user%3A5:1,b:2"),
        "escaped": utils.build_id_escape("50%"),
        "classes": [
            utils.get_class(path) is utils.get_class(path),
            utils.load_class(path) is utils.load_class(path),
            utils.get_class_from_setting("NOT_SET", path) is utils.get_class(path),
            utils.get_class_from_setting("NOT_SET"),
            utils.get_channelmanager() is utils.get_channelmanager(),
        ],
    }))
"""


def query(*names: str, since: str = "") -> str:
    parts = [f"channel={quote(name, safe='')}" for name in names]
    return "&".join([*parts, f"lastEventId={quote(since, safe='')}"] if since else parts)


def replay(url: str, count: int) -> list[tuple[str, str, str]]:
    """What a client gets that starts from the beginning of one channel."""
    with StreamClient(url, reconnect=False) as client:
        client.wait_for(count)
        return [(event.type, event.data, event.last_event_id) for event in client.events]


def test_one_client_reads_on_through_the_swap_and_back_again(site, app_server, running):
    """It has the cursors that 5.3.4 gave it, then ours, then those of 5.3.4."""
    old = running(OldServer(site.old, database=site.database, port=site.port))
    with StreamClient(site.url + query("user:5", "a,b c")) as client:
        client.wait_open()
        old.send(*numbered("user:5", range(1, 4)), *numbered("a,b c", range(1, 3)))
        client.wait_for(5)
        old.kill()
        site.migrate()
        assert site.send(*numbered("user:5", [4, 5])) == [4, 5]
        # Under the wrapper, which adds tickets to cursors.
        tickets = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.TicketChannelManager"}
        database = Database("swapped", site.database)
        new = app_server(database, "uvicorn+wrapper", port=site.port, settings=tickets)
        client.wait_for(7)
        new.send(*numbered("user:5", [6]), *numbered("a,b c", [3]))
        client.wait_for(9)
        new.kill()
        assert site.send(*numbered("a,b c", [4])) == [4]
        site.migrate(APP, "0001")
        old.start()
        client.wait_for(10)
        old.send(*numbered("user:5", [7]), *numbered("a,b c", [5]))
        client.wait_for(12)
    # The cursors of one channel tell of the other one as well.
    assert_sequence(client, "user:5", range(1, 8), ids=False)
    assert_sequence(client, "a,b c", range(1, 6), ids=False)
    assert positions(client.last_event_id) == {"user:5": 7, "a,b c": 5}
    assert not [arrival for arrival in client.arrivals if arrival.type == "stream-reset"]


def test_what_5_3_4_stored_is_sent_as_5_3_4_sent_it(site, app_server, running):
    """Text and JSON, in channels of any name, with the cursors that it gave."""
    cursor = site.fill()
    urls = {name: site.url + query(name, since=f"{quote(name)}:0") for name in NAMES}
    counts = {name: 5 if name == "plain" else 3 for name in NAMES}
    old = running(OldServer(site.old, database=site.database, port=site.port))
    before = {name: replay(urls[name], counts[name]) for name in NAMES}
    old.kill()
    assert before["user:5"][2][2] == "user%3A5:3"
    site.migrate()
    app_server(Database("swapped", site.database), port=site.port)
    assert {name: replay(urls[name], counts[name]) for name in NAMES} == before
    code = f"from django_eventstream import get_current_event_id as get\nprint(get({NAMES!r}))"
    ours = run_python(code, database=site.database).strip()
    assert ours == cursor.rpartition(",quiet:")[0]
    assert site.send(("plain", "message", 1), ("quiet", "message", 1), ("new", "message", 1)) == [
        6,
        1,
        1,
    ]


def test_empty_rows_that_5_3_4_kept_are_never_sent(site, app_server, running):
    site.fill()
    assert [row for row in site.rows()[0] if row[3] == 0], "5.3.4 keeps a row with the id 0"
    site.migrate()
    new = app_server(Database("swapped", site.database), port=site.port)
    with StreamClient(site.url + query("quiet", "never", since="quiet:0,never:0")) as client:
        client.wait_open()
        new.send(*numbered("quiet", [1]))
        client.wait_for(1)
    assert_sequence(client, "quiet", [1])


def test_going_back_restores_the_tables_of_5_3_4_and_every_event(site):
    site.fill()
    schema, [events, counters] = site.schema(), site.rows()
    site.migrate()
    assert site.schema() != schema
    manage("makemigrations", "--check", "--dry-run", APP, database=site.database)
    assert site.send(("plain", "message", {"n": 9})) == [6]
    site.migrate(APP, "0001")
    assert site.schema() == schema
    sent = ["plain", "message", json.dumps('{"n": 9}'), 6]
    assert sorted(site.rows()[0]) == sorted([*events, sent])
    now = dict(site.rows()[1])
    assert {**dict(counters), "plain": 6} == now
    more = "from django_eventstream import send_event, get_current_event_id\n" + (
        "send_event('plain', 'message', 7); print(json.dumps(get_current_event_id(['plain'])))"
    )
    assert site.old.shell(more, database=site.database) == "plain:7"
    assert "No changes" in site.old.manage("makemigrations", "--check", APP, database=site.database)


def test_what_processes_told_each_other_is_not_left_to_clients_of_5_3_4(site):
    """It has no channel that nobody may ask for."""
    site.migrate()
    tell = "from django_eventstream.control import announce_disconnect\n" + (
        "announce_disconnect(None, 'secret')"
    )
    run_python(tell, database=site.database)
    site.migrate(APP, "0001")
    assert site.rows() == [[], []]


def test_events_of_an_open_transaction_survive_going_back(sqlite_site):
    """Committed and not numbered yet: 5.3.4 has no place for that."""
    sqlite_site.migrate()
    stage = "from django_eventstream.models import Event\n" + (
        "Event.objects.create(channel='plain', type='message', data='\"staged\"')"
    )
    run_python(stage, database=sqlite_site.database)
    sqlite_site.migrate(APP, "0001")
    assert ["plain", "message", '"staged"', 1] in sqlite_site.rows()[0]


@pytest.fixture
def behind_proxy(sqlite_site, pushpin, running, app_server, settings):
    """Clients of 5.3.4 behind a proxy, which goes on holding them while the package is swapped."""
    proxy = pushpin(sqlite_site.port, handler={"message_wait": 300})
    grip = {"GRIP_URL": proxy.grip_url}
    old = running(
        OldServer(
            sqlite_site.old,
            "gunicorn",
            database=sqlite_site.database,
            settings=grip,
            port=sqlite_site.port,
        )
    )

    def swap():
        old.kill()
        sqlite_site.migrate()
        database = Database("swapped", sqlite_site.database)
        return app_server(database, "gunicorn", port=sqlite_site.port, settings=grip)

    return proxy, old, swap


def test_connections_that_a_proxy_holds_for_5_3_4_read_on(sqlite_site, behind_proxy):
    """Also the one that had no event yet, to which 5.3.4 never gave an id to come back with."""
    proxy, old, swap = behind_proxy
    name, quiet = f"user:{secrets.token_hex(4)}", f"quiet/{secrets.token_hex(4)}"
    with (
        StreamClient(f"{proxy.url}/events/?{query(name)}") as reading,
        StreamClient(f"{proxy.url}/events/?{query(quiet)}") as waiting,
    ):
        reading.wait_open()
        waiting.wait_open()
        old.send(*numbered(name, [1, 2]))
        reading.wait_for(2)
        assert waiting.last_event_id == ""
        new = swap()
        # The proxy hears of the last one only, sees that something is missing, and asks.
        sqlite_site.send(*numbered(name, [3]), *numbered(quiet, [1]))
        new.send(*numbered(name, [4]), *numbered(quiet, [2]))
        for client, count in (reading, 4), (waiting, 2):
            client.wait_for(count)
            assert [len(client.connections), client.connections[0].end] == [2, "complete"]
        new.send(*numbered(name, [5]), *numbered(quiet, [3]))
        reading.wait_for(5)
        waiting.wait_for(3)
    assert_sequence(reading, name, range(1, 6))
    assert_sequence(waiting, quiet, range(1, 4))


def test_a_connection_held_for_5_3_4_gets_what_is_published_without_coming_back(behind_proxy):
    """Channels, filters and items are those of 5.3.4, so the proxy passes them on at once."""
    proxy, old, swap = behind_proxy
    name = f"user:{secrets.token_hex(4)}"
    with StreamClient(f"{proxy.url}/events/?{query(name)}") as client:
        client.wait_open()
        old.send(*numbered(name, [1]))
        client.wait_for(1)
        # A second after it first held a channel, a proxy asks once of its own accord.
        wait_until(lambda: re.search(r"link=next\S* .*code=200", proxy.log_text()))
        new = swap()
        new.send(*numbered(name, [2, 3]))
        client.wait_for(3)
        assert len(client.connections) == 1
    assert_sequence(client, name, range(1, 4))


def test_helpers_that_projects_call_return_what_they_returned(sqlite_site):
    """An id came after the data, and what is no text was read as the text of its JSON."""
    database = sqlite_site.database
    before = sqlite_site.old.shell(HELPERS.replace("CHANNEL", "old"), database=database)
    manage("migrate", "--verbosity=0", database=database)
    after = json.loads(run_python(HELPERS.replace("CHANNEL", "new"), database=database))
    assert after == before
