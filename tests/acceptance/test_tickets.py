"""Clients that are taken back without Django being asked, and those for whom it is asked."""

from __future__ import annotations

import secrets

import pytest

from django_eventstream import send_events
from tests.services.python import run_python
from tests.sse_client import StreamClient, assert_sequence, numbered
from tests.swarm import Swarm

CLIENTS = 200
REQUEST_LIMIT = 20
SETTINGS = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.TicketChannelManager"}

CHANGE = """
import sys
from django.contrib.auth import get_user_model
from django_eventstream import channel_permission_changed
name, channel, is_staff = sys.argv[1:]
user = get_user_model().objects.get(username=name)
user.is_staff = is_staff == "staff"
user.save()
channel_permission_changed(user, channel)
"""


NEW_EPOCH = """
from django.core.management import call_command
call_command("eventstream_epoch", yes=True)
"""


@pytest.fixture
def options(settings):
    middleware = ["tests.middleware.count_requests", *settings.MIDDLEWARE]
    return {"settings": {**SETTINGS, "MIDDLEWARE": middleware}}


@pytest.fixture(params=["uvicorn+wrapper", "granian+wrapper", "daphne+wrapper"])
def server(request, app_server, sqlite_only, options):
    return app_server(sqlite_only, request.param, **options)


@pytest.fixture
def uvicorn(app_server, sqlite_only, options):
    return app_server(sqlite_only, "uvicorn+wrapper", **options)


def ticket_of(client) -> str:
    return client.last_event_id.rpartition(",:")[2]


def asked(server) -> int:
    return server.stats()["streams_asked_for"]


def show_headers(server, headers=None) -> None:
    """Be the first client of a process, by which it sees what Django answers."""
    url = f"{server.url}/events/?channel=first"
    with StreamClient(url, headers=headers, reconnect=False) as first:
        first.wait_open()
    assert asked(server) == 1


def is_asked_for(server, url, cursor, headers=None) -> bool:
    """Whether Django is asked for a client that comes to a new process with this cursor."""
    show_headers(server, headers)
    with StreamClient(url, headers=headers, last_event_id=cursor, reconnect=False) as client:
        client.wait_open()
    return asked(server) == 2


def cursor_of_a_stopped_server(server, url, headers=None) -> str:
    """What a client has that was there when the server stopped."""
    with StreamClient(url, headers=headers, reconnect=False) as client:
        client.wait_open()
        server.terminate()
        client.wait_for(lambda c: c.connections[-1].end)
    assert ticket_of(client)
    return client.last_event_id


@pytest.mark.timeout(300)
def test_a_restarted_server_takes_all_but_the_first_back_without_asking_django(
    server, sqlite_only, unique_channel
):
    url = f"{server.url}/events/?channel={unique_channel}"
    with Swarm([url] * CLIENTS, headers=server.log_in("anna"), retry=0.2) as swarm:
        swarm.wait_open(timeout=60)
        server.send(*numbered(unique_channel, range(1, 4)))
        swarm.wait_for(lambda c: c.has(unique_channel, 3), timeout=60)
        assert asked(server) == CLIENTS
        server.terminate()
        with sqlite_only.as_default():
            send_events(numbered(unique_channel, range(4, 21)))
        server.start()
        swarm.wait_for(lambda c: c.has(unique_channel, 20), timeout=60)
        # The first ones, all at once, show the process what Django answers.
        assert 1 <= asked(server) <= REQUEST_LIMIT
        server.send(*numbered(unique_channel, [21]))
        swarm.wait_for(lambda c: c.has(unique_channel, 21), timeout=60)
        for member in swarm.members:
            assert_sequence(member, unique_channel, range(1, 22))
            assert member.of_type("stream-reset") == []


def test_a_client_that_is_taken_back_gets_tickets_again(uvicorn, unique_channel):
    url = f"{uvicorn.url}/events/?channel={unique_channel}"
    headers, cursor = uvicorn.log_in("anna"), ""
    for number in range(1, 4):
        with StreamClient(url, headers=headers, last_event_id=cursor, reconnect=False) as client:
            client.wait_open()
            uvicorn.send(*numbered(unique_channel, [number]))
            client.wait_for(lambda c, number=number: c.has(unique_channel, number))
            assert_sequence(client, unique_channel, [number])
            uvicorn.terminate()
            client.wait_for(lambda c: ticket_of(c))
        cursor = client.last_event_id
        uvicorn.start()
        show_headers(uvicorn, headers)
    with StreamClient(url, headers=headers, last_event_id=cursor) as client:
        client.wait_open()
        assert asked(uvicorn) == 1


def test_the_answer_has_the_headers_that_django_gave_before(uvicorn, unique_channel):
    url = f"{uvicorn.url}/events/?channel={unique_channel}"
    with StreamClient(url, headers=uvicorn.log_in("anna")) as client:
        client.wait_open()
        client.cut()
        client.wait_for(lambda c: len(c.of_type("stream-open")) == 2)
        first, second = (dict(connection.headers) for connection in client.connections)
    for headers in (first, second):
        headers.pop("date", None)
    assert first == second
    assert first["x-frame-options"] == "DENY"
    assert asked(uvicorn) == 1


def test_with_another_users_cookie_django_is_asked(uvicorn, unique_channel):
    channel = "private-anna"
    url = f"{uvicorn.url}/events/?channel={channel}"
    with StreamClient(url, headers=uvicorn.log_in("anna")) as anna:
        anna.wait_open()
    assert ticket_of(anna)
    for headers in (uvicorn.log_in("bert"), {}):
        with StreamClient(
            url, headers=headers, last_event_id=anna.last_event_id, reconnect=False
        ) as thief:
            thief.wait_for(lambda c: c.of_type("stream-error"))
            assert thief.of_type("stream-open") == []
    assert asked(uvicorn) == 3


def test_a_ticket_is_not_good_for_another_channel(uvicorn, unique_channels):
    mine, other = unique_channels(2)
    headers = uvicorn.log_in("anna")
    with StreamClient(f"{uvicorn.url}/events/?channel={mine}", headers=headers) as client:
        client.wait_open()
    url = f"{uvicorn.url}/events/?channel={other}"
    with StreamClient(url, headers=headers, last_event_id=client.last_event_id) as elsewhere:
        elsewhere.wait_open()
        uvicorn.send(*numbered(mine, [1]), *numbered(other, [1]))
        elsewhere.wait_for(lambda c: c.has(other, 1))
        assert elsewhere.numbers(mine) == []
    assert asked(uvicorn) == 2


def test_a_permission_taken_away_while_the_server_was_gone_is_heeded(
    uvicorn, sqlite_only, unique_channel
):
    channel = f"staff-{unique_channel}"
    url = f"{uvicorn.url}/events/?channel={channel}"
    environment = {"database": sqlite_only.settings, "settings": SETTINGS}
    anna, bert = uvicorn.log_in("anna"), uvicorn.log_in("bert")
    for name in ("anna", "bert"):
        run_python(CHANGE, name, channel, "staff", **environment)
    cursors = {}
    for headers in (anna, bert):
        with StreamClient(url, headers=headers, reconnect=False) as client:
            cursors[headers["Cookie"]] = client.wait_open().last_event_id
    uvicorn.terminate()
    run_python(CHANGE, "anna", channel, "nobody", **environment)
    with sqlite_only.as_default():
        send_events(numbered(channel, [1]))
    uvicorn.start()
    show_headers(uvicorn, bert)
    with StreamClient(url, headers=bert, last_event_id=cursors[bert["Cookie"]]) as client:
        client.wait_for(lambda c: c.has(channel, 1))
    assert asked(uvicorn) == 1
    with StreamClient(
        url, headers=anna, last_event_id=cursors[anna["Cookie"]], reconnect=False
    ) as client:
        client.wait_for(lambda c: c.of_type("stream-error"))
        assert client.of_type("stream-error")[0].json()["channels"] == [channel]
        assert client.numbers(channel) == []
    assert asked(uvicorn) == 2


def test_a_permission_taken_away_after_the_return_ends_the_stream(
    uvicorn, sqlite_only, unique_channel
):
    channel = f"staff-{unique_channel}"
    environment = {"database": sqlite_only.settings, "settings": SETTINGS}
    headers = uvicorn.log_in("anna")
    run_python(CHANGE, "anna", channel, "staff", **environment)
    with StreamClient(f"{uvicorn.url}/events/?channel={channel}", headers=headers) as anna:
        anna.wait_open()
        anna.cut()
        anna.wait_for(lambda c: len(c.of_type("stream-open")) == 2)
        assert asked(uvicorn) == 1
        run_python(CHANGE, "anna", channel, "nobody", **environment)
        anna.wait_for(lambda c: c.of_type("stream-error"))


@pytest.mark.parametrize(
    "change",
    [
        {"SECRET_KEY": secrets.token_hex(40)},
        {"EVENTSTREAM_STORAGE_CLASS": None},
        {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.managers.StrictChannelManager"},
    ],
)
def test_a_server_with_other_rules_asks_django(uvicorn, unique_channel, change):
    url = f"{uvicorn.url}/events/?channel={unique_channel}"
    cursor = cursor_of_a_stopped_server(uvicorn, url)
    uvicorn.settings |= change
    uvicorn.start()
    assert is_asked_for(uvicorn, url, cursor)


def test_a_key_that_was_rotated_is_honoured_as_a_fallback(uvicorn, settings, unique_channel):
    url = f"{uvicorn.url}/events/?channel={unique_channel}"
    cursor = cursor_of_a_stopped_server(uvicorn, url)
    keys = {"SECRET_KEY": secrets.token_hex(40), "SECRET_KEY_FALLBACKS": [settings.SECRET_KEY]}
    uvicorn.settings |= keys
    uvicorn.start()
    assert not is_asked_for(uvicorn, url, cursor)


def test_after_the_log_was_restored_django_is_asked(uvicorn, sqlite_only, unique_channel):
    url = f"{uvicorn.url}/events/?channel={unique_channel}"
    cursor = cursor_of_a_stopped_server(uvicorn, url)
    run_python(NEW_EPOCH, database=sqlite_only.settings)
    uvicorn.start()
    assert is_asked_for(uvicorn, url, cursor)


@pytest.mark.parametrize("manager", [None, "tests.managers.StrictChannelManager"])
@pytest.mark.parametrize("user", [None, "anna"])
def test_by_default_nobody_gets_a_ticket(app_server, sqlite_only, unique_channel, manager, user):
    """Everybody who was not logged in got one."""
    configured = {} if manager is None else {"EVENTSTREAM_CHANNELMANAGER_CLASS": manager}
    server = app_server(sqlite_only, "uvicorn+wrapper", settings=configured)
    url = f"{server.url}/events/?channel={unique_channel}"
    headers = None if user is None else server.log_in(user)
    with StreamClient(url, headers=headers, reconnect=False) as client:
        client.wait_open()
        server.terminate()
        client.wait_for(lambda c: c.connections[-1].end)
    assert client.last_event_id == f"{unique_channel}:0"


def test_a_process_of_several_that_has_not_answered_anybody_asks_django(
    app_server, sqlite_only, options, uvicorn, unique_channel
):
    """It does not know the headers of the answer, which a ticket only names."""
    url = f"/events/?channel={unique_channel}"
    with StreamClient(uvicorn.url + url, reconnect=False) as client:
        client.wait_open()
    other = app_server(sqlite_only, "uvicorn+wrapper", **options)
    headers = {"Host": uvicorn.url.removeprefix("http://")}
    for _ in range(2):
        with StreamClient(
            other.url + url, headers=headers, last_event_id=client.last_event_id, reconnect=False
        ) as again:
            again.wait_open()
    assert asked(other) == 1
    assert again.connections[0].headers.get("x-frame-options") == "DENY"


def test_a_lane_that_honours_no_tickets_reads_the_cursor_all_the_same(
    app_server, sqlite_only, uvicorn, unique_channel
):
    url = f"/events/?channel={unique_channel}"
    with StreamClient(uvicorn.url + url) as client:
        client.wait_open()
        uvicorn.send(*numbered(unique_channel, [1]))
        client.wait_for(lambda c: c.has(unique_channel, 1))
        uvicorn.terminate()
        client.wait_for(lambda c: ticket_of(c))
    assert client.last_event_id.startswith(f"{unique_channel}:1,:")
    plain = app_server(sqlite_only, "uvicorn")
    plain.send(*numbered(unique_channel, [2]))
    for query in ("", f"&lastEventId={client.last_event_id}"):
        start = "" if query else client.last_event_id
        with StreamClient(plain.url + url + query, last_event_id=start) as again:
            again.wait_for(lambda c: c.has(unique_channel, 2))
            assert again.numbers(unique_channel) == [2]
            assert again.of_type("stream-reset") == []
