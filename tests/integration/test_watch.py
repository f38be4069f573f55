"""The lease that one process has, what it finds, and the thread that takes part for a process."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_eventstream import send_event, send_events
from django_eventstream.backends import get_storage
from django_eventstream.control import DISCONNECT, announce_disconnect
from django_eventstream.events import CONTROL_CHANNEL, Event
from django_eventstream.exceptions import PublishError
from django_eventstream.models import Event as Row
from django_eventstream.models import EventCounter, Lease
from django_eventstream.storage.base import Lease as Taken
from django_eventstream.storage.base import WatchPosition
from django_eventstream.watch import LEASE_SECONDS, Watch
from django_eventstream.watchman import watchman
from tests.outlets import close_outlets
from tests.proxied import Middleman
from tests.services.deadline import wait_until
from tests.services.ports import free_port
from tests.services.python import run_python

HOUR = 3_600
NOBODY_LOOKED = WatchPosition()


@pytest.fixture
def proxy(settings):
    """Something that takes publishes, and shows them."""
    middleman = Middleman("")
    middleman.is_losing = True
    settings.GRIP_URL = middleman.url
    yield middleman
    close_outlets()
    middleman.close()


def moved(channel: str, last_id: int, **ago: float) -> None:
    """A channel that got its last event so long ago, of which no proxy heard."""
    updated = get_storage().now() - timedelta(**ago)
    EventCounter.objects.update_or_create(name=channel, defaults={"value": last_id})
    EventCounter.objects.filter(name=channel).update(updated=updated)


def probed(proxy: Middleman) -> list[tuple[str, str]]:
    return [
        (item["channel"].removeprefix("events-"), item["id"])
        for item in proxy.items
        if item["channel"].startswith("events-") and item["id"] == item["prev-id"]
    ]


# The lease


def test_one_has_the_lease_until_it_lets_go_or_does_not_renew_it(default_database):
    log = get_storage()
    assert log.take_lease("first", 10) == Taken(True, 0, NOBODY_LOOKED)
    other = log.take_lease("second", 10)
    assert not other.is_held
    assert 0 < other.seconds <= 10
    position = WatchPosition(log.now(), 7)
    assert not log.renew_lease("second", 10, position)
    assert log.renew_lease("first", 10, position)
    assert not log.take_lease("second", 10).is_held
    assert log.renew_lease("first", 0, position)
    taken = log.take_lease("second", 10)
    assert (taken.is_held, taken.position) == (True, position)
    Lease.objects.update(until=log.now() - timedelta(seconds=0.01))
    assert log.take_lease("first", 10).is_held
    assert not log.renew_lease("second", 10, position)


def test_a_lease_that_a_wrong_clock_made_too_long_is_free(default_database):
    """On SQLite the clock is the process's: nobody would have watched for an hour."""
    log = get_storage()
    log.take_lease("ahead", 10)
    Lease.objects.update(until=log.now() + timedelta(hours=1))
    assert log.take_lease("second", 10).is_held


# What moved


def test_channels_that_fell_silent_are_found_in_their_order(default_database):
    log = get_storage()
    moved("long ago", 1, hours=2)
    moved("first", 3, seconds=30)
    moved("second", 1, seconds=20)
    moved("busy", 5, seconds=0.5)
    moved("of a wrong clock", 9, hours=-1)
    log.begin_epoch()
    found, position = log.changed_since(NOBODY_LOOKED, HOUR, 2, 100)
    names = [(change.channel, change.last_id) for change in found]
    assert names == [("first", 3), ("second", 1), ("of a wrong clock", 9)]
    moved("third", 1, seconds=5)
    found, _ = log.changed_since(position, HOUR, 2, 100)
    assert [change.channel for change in found] == ["third", "of a wrong clock"]


def test_a_change_that_became_visible_late_is_found(default_database):
    log = get_storage()
    moved("later", 1, seconds=5)
    _, position = log.changed_since(NOBODY_LOOKED, HOUR, 2, 100)
    moved("earlier", 1, seconds=9)
    found, _ = log.changed_since(position, HOUR, 2, 100)
    assert [change.channel for change in found] == ["earlier", "later"]


def test_more_channels_than_a_look_takes_are_met_by_the_next(default_database):
    log = get_storage()
    for n in range(10):
        moved(f"c{n}", 1, seconds=60 - n)
    position, names = NOBODY_LOOKED, []
    while True:
        found, position = log.changed_since(position, HOUR, 2, 4)
        names += [change.channel for change in found]
        if len(found) < 4:
            break
    assert list(dict.fromkeys(names)) == [f"c{n}" for n in range(10)]
    assert len(names) <= 14


# The watch


def test_one_of_two_probes_each_channel_once(default_database, proxy):
    first, second = Watch(get_storage()), Watch(get_storage())
    moved("a", 3, seconds=5)
    for watch in (first, second, first, second):
        watch.turn()
    assert first.is_holder
    assert not second.is_holder
    assert probed(proxy) == [("a", "3")]
    moved("a", 4, seconds=3)
    first.turn()
    assert probed(proxy) == [("a", "3"), ("a", "4")]


def test_the_next_holder_goes_on_where_the_last_one_was(default_database, proxy):
    first, second = Watch(get_storage()), Watch(get_storage())
    moved("a", 1, minutes=5)
    moved("b", 1, seconds=30)
    first.turn()
    first.release()
    moved("c", 1, seconds=15)
    second.turn()
    # But for the last seconds, in which something may have become visible late.
    assert probed(proxy) == [("a", "1"), ("b", "1"), ("b", "1"), ("c", "1")]


def test_a_holder_that_reaches_no_proxy_leaves_the_watch_to_another(
    default_database, proxy, settings
):
    """It would have the lease, and nobody would ever be told."""
    first, second = Watch(get_storage()), Watch(get_storage())
    moved("a", 1, seconds=5)
    settings.GRIP_URL = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(PublishError, match="no GRIP proxy can be reached"):
        first.turn()
    assert not first.is_holder
    settings.GRIP_URL = proxy.url
    second.turn()
    assert second.is_holder
    assert probed(proxy) == [("a", "1")]


def test_one_proxy_of_several_that_takes_a_probe_is_enough(default_database, proxy, settings):
    settings.GRIP_PROXIES = [{"control_uri": f"http://127.0.0.1:{free_port()}"}]
    watch = Watch(get_storage())
    moved("a", 1, seconds=5)
    watch.turn()
    assert watch.is_holder
    assert probed(proxy) == [("a", "1")]


def test_users_who_lost_a_channel_are_told_of_again_once(default_database, proxy, settings):
    settings.GRIP_URL = None  # those who say it reach nobody
    for user in (None, None):
        announce_disconnect(user, "news")
    get_storage().append([Event(CONTROL_CHANNEL, DISCONNECT, '{"user": "7", "channel": "news"}')])
    get_storage().append([Event(CONTROL_CHANNEL, "of a later version", "{}")])
    settings.GRIP_URL = proxy.url
    EventCounter.objects.update(updated=get_storage().now() - timedelta(seconds=5))
    watch = Watch(get_storage())
    for _ in range(2):
        watch.turn()
    told = sorted(item["channel"] for item in proxy.items)
    assert told == ["user-7", "user-anonymous"]
    watch.release()
    assert Lease.objects.get().control_id == 4


def test_events_left_behind_go_on_their_way(default_database, proxy):
    with transaction.atomic():
        get_storage().stage([Event("a", "message", "x")])
    Row.objects.update(created=timezone.now() - timedelta(seconds=5))
    watch = Watch(get_storage())
    watch.turn()
    assert watch.relayed == 1
    wait_until(lambda: [item["id"] for item in proxy.items] == ["1"])


def statements(action) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        action()
    return [query["sql"] for query in captured if not query["sql"].startswith(("BEGIN", "COMMIT"))]


def test_a_look_costs_two_statements_and_one_more_now_and_then(default_database, proxy):
    holder, other = Watch(get_storage()), Watch(get_storage())
    send_events([(f"c{n}", "message", n) for n in range(50)])
    holder.turn()
    assert len(found := statements(holder.turn)) == 2, found
    assert all(sql.startswith("SELECT") for sql in found)
    assert len(statements(other.turn)) == 1
    moved("c1", 2, seconds=5)
    assert len(statements(holder.turn)) == 2
    assert probed(proxy) == [("c1", "2")]
    holder._held_until -= LEASE_SECONDS / 2
    renewed = statements(holder.turn)
    assert [sql.split()[0] for sql in renewed] == ["SELECT", "SELECT", "UPDATE"]


def test_sending_costs_nothing_more(default_database, proxy):
    send_event("a", "message", 1)
    assert len(statements(lambda: send_event("a", "message", 2))) <= 2


def test_the_command_says_when_no_proxy_can_be_reached(default_database, settings):
    settings.GRIP_URL = f"http://127.0.0.1:{free_port()}"
    moved("a", 1, seconds=5)
    with pytest.raises(CommandError, match="no GRIP proxy can be reached"):
        call_command("eventstream_relay", once=True)


def test_the_command_looks_once_whoever_has_the_lease(default_database, proxy):
    Watch(get_storage()).turn()
    moved("a", 1, seconds=0)
    call_command("eventstream_relay", once=True)
    assert probed(proxy) == [("a", "1")]


WITHOUT_AUTOCOMMIT = """
from django.db import connections
from django_eventstream.backends import get_storage
from django_eventstream.watch import Watch
watch = Watch(get_storage())
watch.turn()
assert watch.is_holder
connections.close_all()
"""


def test_the_lease_is_committed_where_the_project_commits_by_hand(default_database, proxy):
    """With `AUTOCOMMIT = False` nobody did, and each process thought that it had the lease."""
    database = {**default_database.settings, "AUTOCOMMIT": False}
    run_python(WITHOUT_AUTOCOMMIT, database=database, settings={"GRIP_URL": proxy.url})
    assert not get_storage().take_lease("other", 10).is_held


# The thread


def test_no_thread_begins_where_tests_run(default_database, proxy):
    """Its connection would keep the test runner from removing the database."""
    send_event("a", "message", 1)
    watchman.stir()
    assert watchman._thread is None


ONE_REQUEST = """
import io, sys
from django.core.handlers.wsgi import WSGIHandler
environ = {
    "REQUEST_METHOD": "GET", "PATH_INFO": "/stats/", "SERVER_NAME": "x", "SERVER_PORT": "80",
    "wsgi.input": io.BytesIO(), "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr,
}
body = b"".join(WSGIHandler()(environ, lambda status, headers: print(status)))
"""


def test_a_process_of_one_request_looks_before_it_ends(default_database, proxy, settings):
    moved("a", 1, seconds=5)
    database, grip = default_database.settings, {"GRIP_URL": proxy.url}
    for _ in range(2):
        assert "200" in run_python(ONE_REQUEST, database=database, settings=grip)
        assert probed(proxy)[0] == ("a", "1")
        assert Lease.objects.get().until <= get_storage().now()
    # What the first one told, the second one knew, but for what is looked at twice.
    assert len(probed(proxy)) <= 2


THREADS = """
import os, sys, time
from django.db import connections
from django_eventstream import send_event, watch, watchman as module
from django_eventstream.backends import get_storage
from django_eventstream.models import Lease
from tests.services.deadline import wait_until

watchman = module.watchman
send_event("a", "message", 1)
thread = watchman._thread
assert thread.is_alive() and thread.daemon

def is_held():
    found = Lease.objects.first()
    return found and f":{os.getpid()}:" in found.holder and found.until > get_storage().now()

wait_until(is_held)
if not os.fork():
    assert watchman._thread is None
    watchman.stir()
    assert watchman._thread.is_alive()
    watchman.finish(time.monotonic() + 5)
    sys.stdout.flush()
    os._exit(0)
_, status = os.wait()
assert status == 0
module.IDLE_SECONDS = -10_000
watchman._wake.set()
wait_until(lambda: watchman._thread is None)
assert not is_held()
module.IDLE_SECONDS = 60
watchman._wake.clear()
watchman.stir()
wait_until(is_held)
print("good")
"""


def test_the_thread_begins_anew_after_a_fork_and_ends_with_the_lease(default_database, proxy):
    printed = run_python(
        THREADS, database=default_database.settings, settings={"GRIP_URL": proxy.url}
    )
    assert printed.strip() == "good"
    # At its end the process let go of the lease, and of its connections.
    assert get_storage().take_lease("next", 10).is_held


FROZEN = """
from django.db import connection, transaction
from django_eventstream import watchman as module
from django_eventstream.backends import get_storage
from django_eventstream.models import Lease
from django_eventstream.watch import LEASE_SECONDS
from tests.services.deadline import wait_until

watchman, module.STUCK_SECONDS = module.watchman, 0.2
with transaction.atomic():
    connection.cursor().execute("LOCK TABLE django_eventstream_lease IN ACCESS EXCLUSIVE MODE")

    def is_given_up():
        watchman.stir()
        return len(watchman._stuck) == module.MOST_STUCK

    wait_until(is_given_up)
    last = watchman._thread
    wait_until(watchman._is_stuck)
    watchman.stir()
    assert watchman._thread is last
module.STUCK_SECONDS = 60
wait_until(lambda: not any(thread.is_alive() for thread in watchman._stuck))
# One that was given up may take the lease first, and let go of it: the last one asks again when
# the lease would have been over, and a little later.
wait_until(lambda: Lease.objects.filter(until__gt=get_storage().now()), LEASE_SECONDS * 1.5 + 10)
print("good")
"""


def test_a_turn_that_a_frozen_database_holds_up_is_given_up(postgres_only, proxy):
    """A process of which one connection froze would never have watched again."""
    with postgres_only.as_default():
        printed = run_python(
            FROZEN, database=postgres_only.settings, settings={"GRIP_URL": proxy.url}
        )
    assert printed.strip() == "good"


@pytest.mark.parametrize(
    "wrong", [{"EVENTSTREAM_STORAGE_CLASS": "no.such.Storage"}, {"GRIP_URL": "http://[x"}]
)
def test_wrong_settings_fail_no_request_for_the_sake_of_the_watch(sqlite_only, proxy, wrong):
    code = "from django_eventstream.watchman import watchman\nwatchman.stir()\nprint('good')"
    settings = {"GRIP_URL": proxy.url, **wrong}
    assert run_python(code, database=sqlite_only.settings, settings=settings).strip() == "good"


CONNECTIONS = """
from django.db import connection
from django_eventstream.backends import get_storage
from django_eventstream.models import Lease
from django_eventstream.watchman import watchman
from tests.services.deadline import wait_until

def count():
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()")
        return cursor.fetchone()

before = count()
watchman.stir()
wait_until(lambda: Lease.objects.filter(until__gt=get_storage().now()))
wait_until(lambda: count() == before)
assert watchman._thread.is_alive()
print("good")
"""


def test_no_connection_stays_open_between_two_looks(postgres_only, proxy):
    settings = {"GRIP_URL": proxy.url}
    printed = run_python(CONNECTIONS, database=postgres_only.settings, settings=settings)
    assert printed.strip() == "good"
