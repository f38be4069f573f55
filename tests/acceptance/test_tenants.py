"""Several tenants or sites, whose channels have the same names: no event crosses.

Tenants are told apart by host: `localhost` is alpha's, `127.0.0.1` is beta's.
"""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.layers import layer_on, members
from tests.proxied import Middleman
from tests.redis_log import connection_to
from tests.services.deadline import HEALTHY, wait_until
from tests.services.ports import free_port
from tests.services.process import private_directory, remove_directory
from tests.services.python import ROOT, manage, run_python
from tests.services.servers import AppServer
from tests.settings import INSTALLED_APPS, MIDDLEWARE, sqlite
from tests.sse_client import StreamClient

SHARED = ["django_tenants", "tests.tenants", *INSTALLED_APPS]
SOMETHING = "tests.people"
"""An app for tenants, since they must have one."""

MAKE_TENANTS = """
from tests.tenants.models import Domain, Tenant
for schema, host in ("alpha", "localhost"), ("beta", "127.0.0.1"):
    tenant = Tenant.objects.create(schema_name=schema)
    Domain.objects.create(tenant=tenant, domain=host, is_primary=True)
"""


def tenant_settings(*tenant_apps: str, **settings: object) -> dict[str, Any]:
    return {
        "INSTALLED_APPS": SHARED,
        "SHARED_APPS": SHARED,
        "TENANT_APPS": list(tenant_apps),
        "TENANT_MODEL": "tenants.Tenant",
        "TENANT_DOMAIN_MODEL": "tenants.Domain",
        "DATABASE_ROUTERS": ["django_tenants.routers.TenantSyncRouter"],
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        "MIDDLEWARE": ["django_tenants.middleware.main.TenantMainMiddleware", *MIDDLEWARE],
        "ROOT_URLCONF": "tests.tenants.urls",
        "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.tenants.channels.TenantChannelManager",
        **settings,
    }


@pytest.fixture(scope="module")
def tenant_database(postgres):
    """`tenant_database(settings)`: a new one with two tenants; what a server needs to open it."""

    def make(name: str, settings: dict[str, Any]) -> dict[str, Any]:
        postgres.create_database(name)
        engine = {"ENGINE": "django_tenants.postgresql_backend"}
        database = {**postgres.django_settings(name), **engine}
        manage("migrate_schemas", "--shared", "-v0", database=database, settings=settings)
        run_python(MAKE_TENANTS, database=database, settings=settings)
        return database

    return make


def url_of(server, tenant: str) -> str:
    host = {"alpha": "localhost", "beta": "127.0.0.1"}[tenant]
    return f"http://{host}:{server.port}"


def send_as(server, tenant: str, channel: str, data: str):
    request = urllib.request.Request(
        url_of(server, tenant) + "/send-as-tenant/", json.dumps([channel, data]).encode()
    )
    return json.loads(urllib.request.urlopen(request, timeout=HEALTHY).read())


def client_of(server, tenant: str, *channels: str, **options: Any) -> StreamClient:
    query = "&".join(f"channel={channel}" for channel in channels)
    return StreamClient(f"{url_of(server, tenant)}/events/?{query}", **options)


def said(client: StreamClient) -> list[Any]:
    return [arrival.json() for arrival in client.events]


ASK_AGAIN = """
import threading
from django.contrib.auth import get_user_model
from django.db import connection, connections
from django.test import RequestFactory
from django_tenants.utils import schema_context
from django_eventstream.web.requests import parse_hold
from tests.tenants.channels import TenantChannelManager
from tests.tenants.models import Tenant

TenantChannelManager.get_ticket_seconds = lambda *given: 60
for schema, name in ("public", "amy"), ("alpha", "bob"):
    with schema_context(schema):
        assert get_user_model().objects.create(username=name).pk == 1
request = RequestFactory().get("/events/?channel=private-bob")
request.tenant = Tenant.objects.get(schema_name="alpha")
connection.set_tenant(request.tenant)
request.user = get_user_model().objects.get()
hold = parse_hold(request, {})

def ask():
    hold.authorize()
    print("allowed", hold.ticket_seconds, connection.schema_name)
    connections.close_all()

thread = threading.Thread(target=ask)
thread.start()
thread.join()
"""


USERS = ("django.contrib.contenttypes", "django.contrib.auth")
"""Each tenant has its own, and the shared schema has some as well."""


@pytest.fixture(scope="module")
def shared_log(tenant_database) -> dict[str, Any]:
    return tenant_database("tenants_shared", tenant_settings(SOMETHING, *USERS))


class TestOneLogForAllTenants:
    """The way that `docs/howto/tenants.md` tells."""

    @pytest.fixture
    def servers(self, shared_log, running) -> list[AppServer]:
        return [
            running(
                AppServer(kind, database=shared_log, settings=tenant_settings(SOMETHING, *USERS))
            )
            for kind in ("uvicorn+wrapper", "daphne")
        ]

    def test_each_has_its_own_events_live_and_from_the_history(self, servers):
        with ExitStack() as stack:
            clients = {
                tenant: [stack.enter_context(client_of(s, tenant, "news")) for s in servers]
                for tenant in ("alpha", "beta")
            }
            for client in sum(clients.values(), []):
                client.wait_open()
            for n in range(1, 11):
                for tenant in clients:
                    sent = send_as(servers[n % 2], tenant, "news", f"{tenant} {n}")
                    assert sent == {"id": n}
            for tenant, mine in clients.items():
                for client in mine:
                    client.wait_for(10)
                    assert said(client) == [f"{tenant} {n}" for n in range(1, 11)]
            for tenant in clients:
                options = {"last_event_id": f"{tenant}:news:5"}
                history = stack.enter_context(client_of(servers[0], tenant, "news", **options))
                history.wait_for(lambda history: len(history.events) == 10 - 5 or None)
                assert said(history) == [f"{tenant} {n}" for n in range(6, 11)]

    def test_each_has_its_own_behind_one_proxy_and_what_was_lost_is_asked_for_as_that_tenant(
        self, shared_log, running, pushpin
    ):
        port = free_port()
        proxy = pushpin(port)
        middleman = Middleman(proxy.control_url)
        settings = tenant_settings(
            SOMETHING,
            *USERS,
            GRIP_URL=proxy.grip_url.replace(proxy.control_url, middleman.url),
            EVENTSTREAM_RECOVERY_SECONDS=1,
        )
        server = running(AppServer("gunicorn", database=shared_log, settings=settings, port=port))
        with (
            client_of(proxy, "alpha", "grip") as alpha,
            client_of(proxy, "beta", "grip") as beta,
        ):
            for n, is_lost in enumerate([False, True, False], 1):
                middleman.is_losing = is_lost
                for tenant, client in ("alpha", alpha), ("beta", beta):
                    client.wait_open()
                    send_as(server, tenant, "grip", f"{tenant} {n}")
                for client in alpha, beta:
                    client.wait_for(n)
            assert middleman.lost
            for tenant, client in ("alpha", alpha), ("beta", beta):
                assert said(client) == [f"{tenant} {n}" for n in (1, 2, 3)]
                assert len(client.connections) == 1

    def test_permission_is_asked_for_the_tenant_of_the_channel(self, servers):
        with client_of(servers[0], "alpha", "private-amy", persistent=False) as refused:
            refused.wait_for(lambda refused: "stream-error" in [a.type for a in refused.arrivals])

    def test_a_user_who_is_asked_for_again_is_the_one_of_the_tenant(self, shared_log):
        """Without a request the public schema was asked, where somebody else had the same key.

        Then that of the tenant was left to the next one that the thread asked for, and the user
        of a ticket was still looked for in the public one.
        """
        settings = tenant_settings(SOMETHING, *USERS)
        said = run_python(ASK_AGAIN, database=shared_log, settings=settings)
        assert said == "allowed 0 public\n"

    def test_another_tenants_channel_cannot_be_named(self, servers):
        with client_of(servers[0], "alpha", "news", "beta:news") as client:
            client.wait_open()
            send_as(servers[0], "beta", "news", "of beta")
            send_as(servers[0], "alpha", "news", "of alpha")
            client.wait_for(1)
            assert said(client) == ["of alpha"]


class TestALogForEachTenant:
    @pytest.mark.parametrize("shared_as_well", [False, True])
    def test_no_stream_opens_and_the_error_names_the_remedy(
        self, tenant_database, running, shared_as_well
    ):
        """Streams never opened; with the tables in both, beta's had an event of alpha's."""
        settings = tenant_settings(
            SOMETHING,
            "django_eventstream",
            SHARED_APPS=[n for n in SHARED if shared_as_well or n != "django_eventstream"],
            SILENCED_SYSTEM_CHECKS=["eventstream.E034"],
            EVENTSTREAM_CHANNELMANAGER_CLASS=(
                "django_eventstream.channelmanager.DefaultChannelManager"
            ),
        )
        database = tenant_database(f"tenants_apart_{shared_as_well}".lower(), settings)
        server = running(AppServer("uvicorn+wrapper", database=database, settings=settings))
        with client_of(server, "beta", "alpha:news", "beta:news") as client:
            client.wait_for(lambda client: client.arrivals)
            send_as(server, "alpha", "news", "of alpha")
            assert {arrival.type for arrival in client.arrivals} == {"stream-error"}
        wait_until(lambda: server.log_text().count("docs/howto/tenants.md") >= 2)
        assert "event log of this request or task is another one" in server.log_text()


@pytest.fixture(scope="module")
def new_site() -> Iterator[Callable[[str], dict[str, Any]]]:
    """`new_site(name)` is a database, which begins as a copy of one that all of them have."""
    directory = private_directory("sites")
    template = directory / "template.sqlite3"
    manage("migrate", "-v0", database=sqlite(str(template)))

    def copy(name: str) -> dict[str, Any]:
        return sqlite(str(shutil.copy(template, directory / f"{name}.sqlite3")))

    yield copy
    remove_directory(directory)


def test_a_router_that_goes_by_the_request_serves_the_log_of_no_request_alone(new_site, running):
    """Streams of both hosts were served from `default`, and got what was sent there."""
    default, alpha = new_site("default"), new_site("alpha")
    settings = {
        "DATABASES": {"default": default, "alpha": alpha},
        "DATABASE_ROUTERS": ["tests.tenants.by_host.ByHostRouter"],
        "MIDDLEWARE": ["tests.tenants.by_host.ByHostMiddleware", *MIDDLEWARE],
    }
    server = running(AppServer("uvicorn+wrapper", database=default, settings=settings))
    with client_of(server, "beta", "news") as beta, client_of(server, "alpha", "news") as client:
        beta.wait_open()
        client.wait_for(lambda client: client.arrivals)
        assert {arrival.type for arrival in client.arrivals} == {"stream-error"}
        body = json.dumps({"events": [["news", "message", "of alpha"]]}).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(
            urllib.request.Request(url_of(server, "alpha") + "/send/", body, headers),
            timeout=HEALTHY,
        )
        server.send(("news", "message", "of beta"))
        beta.wait_for(1)
        assert said(beta) == ["of beta"]
    assert "ByHostRouter" in server.log_text()
    assert "docs/howto/tenants.md" in server.log_text()


@pytest.mark.parametrize("broker", ["redis", "core"])
def test_two_sites_with_one_broker_do_not_hear_each_other(
    new_site, running, redis_server, broker, unique_channel
):
    """Event 1 of one site was event 1 of the other, which had a channel of the same name."""
    wakeups = (
        {"EVENTSTREAM_REDIS": connection_to(redis_server)}
        if broker == "redis"
        else {"CHANNEL_LAYERS": layer_on(broker, redis_server.url)}
    )
    settings = {
        **wakeups,
        "EVENTSTREAM_POLL_SECONDS": 600,
        "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.LooseChannelManager",
    }
    one, two = new_site("one"), new_site("two")
    # Two processes of the first site show what the broker has delivered.
    servers = [
        running(AppServer("uvicorn+wrapper", database=database, settings=settings))
        for database in (one, one, two)
    ]
    channels = unique_channel, f"loose-{unique_channel}"
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                StreamClient(f"{server.url}/events/?channel={channels[0]}&channel={channels[1]}")
            )
            for server in servers
        ]
        for client in clients:
            client.wait_open()
        if broker == "redis":
            wait_until(
                lambda: b":3\r\n" in redis_server.command("PUBSUB NUMSUB eventstream:news:0")
            )
        else:
            wait_until(lambda: members(redis_server, broker) == 3)
        for sender in (0, 2):
            servers[sender].send(*[(name, "message", f"of {sender}") for name in channels])
            for client in clients[:2] if sender == 0 else clients[2:]:
                client.wait_for(2)
    assert [said(client) for client in clients] == [["of 0"] * 2, ["of 0"] * 2, ["of 2"] * 2]


def test_the_guide_shows_the_channel_manager_that_is_tested():
    source = (ROOT / "tests" / "tenants" / "channels.py").read_text()
    code = source.partition("\n\n")[2]
    assert code in (ROOT / "docs" / "howto" / "tenants.md").read_text()
