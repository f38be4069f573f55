"""Fixtures for real services. Each is started when the first test asks for it."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import pytest
from django.db import connections

from tests.services.browser import Browser
from tests.services.databases import Database, server_database, sqlite_database
from tests.services.mariadb import MariaDB
from tests.services.pgbouncer import PgBouncer
from tests.services.postgres import Postgres
from tests.services.process import heed_interrupts, private_directory, remove_directory
from tests.services.pushpin import Pushpin, route_to
from tests.services.redis import Redis
from tests.services.servers import AppServer
from tests.services.service import Service

ServiceT = TypeVar("ServiceT", bound=Service)
LOG_TAIL = 8_000
started_services = pytest.StashKey[list["Service"]]()
"""A test's own, and the session's for all tests."""


def pytest_configure() -> None:
    heed_interrupts()


def pytest_collection_finish() -> None:
    # Thousands of tests stay in memory for good. On a busy machine the garbage collector took up to
    # two seconds to look at them all, and every thread of this process stood still meanwhile.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    # Hypothesis may be imported only now, for the summary, and asks the collector for references.
    gc.unfreeze()


@pytest.fixture(scope="session")
def postgres(request) -> Iterator[Postgres]:
    """A running PostgreSQL for all tests. To kill one, make one: `with Postgres() as mine:`."""
    with shared(request, Postgres()) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb(request) -> Iterator[MariaDB]:
    """A running MariaDB for all tests. To kill one, make one: `with MariaDB() as mine:`."""
    with shared(request, MariaDB()) as server:
        yield server


@pytest.fixture(scope="session")
def shared_redis(request) -> Iterator[Redis]:
    with shared(request, Redis()) as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: Redis) -> Redis:
    """A running, empty Redis; a test may kill, restart and fill it."""
    if not shared_redis.is_running:
        shared_redis.start()
    shared_redis.renew()
    return shared_redis


def shared(request: pytest.FixtureRequest, service: ServiceT) -> ServiceT:
    """Lets a test that cannot be set up show the service's log."""
    request.session.stash.setdefault(started_services, []).append(service)
    return service


@contextmanager
def opened(name: str, database_of: Callable[[str], Database], blocker) -> Iterator[Database]:
    with blocker.unblock():
        database = database_of(name)
        database.empty()
        try:
            yield database
        finally:
            connections[database.alias].close()


@pytest.fixture(scope="session")
def database_of(request) -> Iterator[Callable[[str], Database]]:
    """Finds or makes the one `sqlite`, `postgres` or `mariadb` database of this run."""
    made: dict[str, Database] = {}
    directory = private_directory("sqlite")

    def make(name: str) -> Database:
        if name == "sqlite":
            database = sqlite_database(directory)
        else:
            database = server_database(request.getfixturevalue(name))
        database.migrate()
        return database

    def find(name: str) -> Database:
        if name not in made:
            made[name] = make(name)
        return made[name]

    yield find
    remove_directory(directory)


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def database(request, database_of, django_db_blocker) -> Iterator[Database]:
    """A migrated, empty database, on each of the three in turn, open to this test.

    What is written is committed. Its alias is known to Django in this process; other processes
    get `database.settings`. Do not ask for pytest-django's `db` as well.
    """
    with opened(request.param, database_of, django_db_blocker) as found:
        yield found


@pytest.fixture
def default_database(database: Database) -> Iterator[Database]:
    """`database`, which also is `default` in this process for the time of the test."""
    with database.as_default():
        yield database


@pytest.fixture
def sqlite_only(database_of, django_db_blocker) -> Iterator[Database]:
    """Like `database`, for tests to which its kind is all the same."""
    with opened("sqlite", database_of, django_db_blocker) as found:
        yield found


@pytest.fixture
def postgres_only(database_of, django_db_blocker) -> Iterator[Database]:
    """Like `database`, for tests about PostgreSQL."""
    with opened("postgres", database_of, django_db_blocker) as found:
        yield found


@pytest.fixture
def pgbouncer(running: Callable[[Service], Service], postgres_only: Database) -> PgBouncer:
    """A PgBouncer in front of the database of `postgres_only`, to which it keeps connections."""
    return running(PgBouncer(postgres_only))


@pytest.fixture
def app_server(running: Callable[[Service], Service]) -> Callable[..., AppServer]:
    """Starts servers for this test: `app_server(database, "daphne", settings={…}) -> AppServer`.

    More keywords are those of `AppServer`. All are killed in the end; the logs of a test that
    failed are shown.
    """

    def start(database: Database, kind: str = "uvicorn", **options) -> AppServer:
        return running(AppServer(kind, database=database.settings, **options))

    return start


@pytest.fixture
def pushpin(running: Callable[[Service], Service]) -> Callable[..., Pushpin]:
    """Starts proxies for this test: `pushpin(port) -> Pushpin` in front of that port.

    `routes=[…]` instead of a port gives the lines of its routes file; more keywords are those of
    `Pushpin`. An application needs its `grip_url` before it starts; the port of an application may
    be taken first by `free_port()`.
    """

    def start(port: int | None = None, *, routes: list[str] | None = None, **options) -> Pushpin:
        return running(Pushpin(routes or [route_to(port)], **options))

    return start


@pytest.fixture
def running(request) -> Iterator[Callable[[Service], Service]]:
    """Starts a service for this test and closes it afterwards."""
    with ExitStack() as stack:
        services = request.node.stash.setdefault(started_services, [])

        def start(service: Service) -> Service:
            services.append(service)
            return stack.enter_context(service)

        yield start


@pytest.fixture(scope="session")
def browsers() -> Iterator[Callable[[int], Browser]]:
    """The browsers of this run by number: each is started once, for starting one takes a second."""
    made: dict[int, Browser] = {}
    with ExitStack() as stack:

        def find(number: int) -> Browser:
            if number not in made:
                made[number] = Browser()
                stack.callback(made[number].close)
            return made[number]

        yield find


@pytest.fixture
def browser(browsers) -> Iterator[Browser]:
    """Headless Chromium with no cookies; `browser.driver` is selenium's."""
    yield browsers(0)
    browsers(0).reset()


@pytest.fixture
def other_browser(browsers) -> Iterator[Browser]:
    """A second person's browser."""
    yield browsers(1)
    browsers(1).reset()


@pytest.fixture
def unique_channel() -> str:
    """A channel name that no test has used: Pushpin remembers channel and id for a minute."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def unique_channels() -> Callable[[int], list[str]]:
    """`unique_channels(n)`: so many of them."""
    return lambda count: [f"test-{secrets.token_hex(6)}" for _ in range(count)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    if report.failed:
        of_all = item.session.stash.get(started_services, []) if call.when == "setup" else []
        for service in [*item.stash.get(started_services, []), *of_all]:
            title = f"log of {service.name} on port {service.port}"
            report.sections.append((title, service.log_text()[-LOG_TAIL:]))
    return report
