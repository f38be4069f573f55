"""Times are those of the database, whatever the clock and the time zone of a process."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from django_eventstream import send_event
from django_eventstream.backends import get_storage
from django_eventstream.models import Event, EventCounter
from tests.services.clocks import clock_ahead
from tests.services.deadline import wait_until
from tests.services.python import manage, run_python

DIES_AFTER_COMMIT = """
import os, signal
from django.db import transaction
from django_eventstream import send_event
from django_eventstream.storage.orm import DjangoModelStorage
if not os.fork():
    DjangoModelStorage.number = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
    with transaction.atomic():
        send_event("left", "message", 1)
_, status = os.wait()
assert os.WTERMSIG(status) == signal.SIGKILL
"""

SENDS = """
from django.db import transaction
from django_eventstream import send_event, send_events
send_event("one", "message", 1)
send_event("one", "message", 2)
send_events([("many", "message", n) for n in range(3)])
with transaction.atomic():
    send_event("staged", "message", 1)
    send_events([("all staged", "message", n) for n in range(3)])
"""


@pytest.fixture(params=["postgres", "mariadb"])
def server_database(request, database_of, django_db_blocker):
    """A database with a clock of its own."""
    with django_db_blocker.unblock():
        database = database_of(request.param)
        database.empty()
        with database.as_default():
            yield database


def test_an_event_left_behind_by_a_sender_whose_clock_is_ahead_is_found_at_once(default_database):
    """It was found an hour later: its age was reckoned from the time that the sender wrote."""
    env = clock_ahead(hours=1)
    run_python(DIES_AFTER_COMMIT, database=default_database.settings, env=env)
    wait_until(lambda: get_storage().get_position([]).unnumbered == {"left"})
    assert [event.id for event in get_storage().number("left")] == [1]


def test_a_sender_whose_clock_is_ahead_writes_the_time_of_the_database(server_database):
    run_python(SENDS, database=server_database.settings, env=clock_ahead(hours=1))
    written = [
        *Event.objects.values_list("created", flat=True),
        *EventCounter.objects.values_list("updated", flat=True),
    ]
    assert len(written) == 2 + 3 + 1 + 3 + 4
    now = timezone.now()
    assert all(now - timedelta(minutes=10) < time <= now for time in written)


def test_a_process_whose_clock_is_ahead_does_not_trim_early(server_database):
    """Half an hour of history was removed, if a cron job's machine was an hour ahead."""
    send_event("a", "message", 1)
    arguments = {
        "database": server_database.settings,
        "settings": {"EVENTSTREAM_RETENTION_SECONDS": 1800},
        "env": clock_ahead(hours=1),
    }
    assert "0 expired events removed" in manage("eventstream_trim", **arguments)
    Event.objects.update(created=timezone.now() - timedelta(hours=1))
    assert "1 expired events removed" in manage("eventstream_trim", **arguments)


def test_nor_does_it_trim_a_log_in_redis_early(redis_server):
    arguments = {
        "settings": {
            "EVENTSTREAM_STORAGE_CLASS": "django_eventstream.storage.RedisStorage",
            "EVENTSTREAM_REDIS": {"host": "127.0.0.1", "port": redis_server.port},
            "EVENTSTREAM_RETENTION_SECONDS": 1800,
        }
    }
    run_python("from django_eventstream import *; send_event('a', 'message', 1)", **arguments)
    assert "0 expired" in manage("eventstream_trim", env=clock_ahead(hours=1), **arguments)


ZONES = [
    pytest.param({"USE_TZ": False, "TIME_ZONE": "America/New_York"}, {}, id="no time zones"),
    pytest.param({"TIME_ZONE": "America/New_York"}, {}, id="zone of the site"),
    pytest.param({}, {"TIME_ZONE": "Asia/Kathmandu"}, id="zone of the database"),
]

TIMES = """
import json
from datetime import timedelta
from django.db import connection, transaction
from django.utils import timezone
from django_eventstream import send_event
from django_eventstream.backends import get_storage
from django_eventstream.events import Event as Sent
from django_eventstream.models import Event, EventCounter
send_event("a", "message", 1)
with transaction.atomic():
    get_storage().stage([Sent("b", "message", "x")])
fresh = sorted(get_storage().get_position([]).unnumbered)
Event.objects.filter(channel="b").update(created=timezone.now() - timedelta(seconds=60))
times = [Event.objects.get(channel="a").created, EventCounter.objects.get().updated]
times.append(get_storage().now())
print(json.dumps([
    [abs((time - timezone.now()).total_seconds()) < 60 for time in times],
    fresh,
    sorted(get_storage().get_position([]).unnumbered),
]))
"""


@pytest.mark.parametrize(("settings_of", "options"), ZONES)
def test_times_are_right_in_every_time_zone(database, settings_of, options):
    printed = run_python(TIMES, database={**database.settings, **options}, settings=settings_of)
    assert json.loads(printed) == [[True, True, True], [], ["b"]]
