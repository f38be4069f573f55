"""A process that sends is killed at every point; what it committed arrives once, and in order."""

from __future__ import annotations

from django_eventstream.models import Event, EventCounter
from django_eventstream.outbox import relay_left_behind
from django_eventstream.storage import DjangoModelStorage
from tests.services.deadline import wait_until
from tests.services.python import run_python
from tests.sse_client import StreamClient, assert_sequence

# Forks a child for each point, on a channel of its own; none but the child uses the database.
KILLED_EVERYWHERE = """
import itertools, os, signal
from django.db import connection, transaction
from django_eventstream import outbox, send_event

# What others left behind would be numbered by statements among those that are counted here.
outbox._Look.due = float("inf")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dying_at(point):
    passed = itertools.count()
    def run(execute, *arguments):
        if next(passed) == point:
            die()
        result = execute(*arguments)
        if next(passed) == point:
            die()
        return result
    return run

def send(point):
    with connection.execute_wrapper(dying_at(point)):
        with transaction.atomic():
            send_event(f"killed-{point}", "message", 1)
            send_event(f"killed-{point}", "message", 2)
        send_event(f"killed-{point}", "message", 3)
    os._exit(0)

for point in itertools.count():
    if not (child := os.fork()):
        send(point)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert status == 0, status
        print(point)
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
"""

KILLED_AFTER_COMMIT = """
import os, signal, sys
from django.db import connection, transaction
from django_eventstream import send_event

def die():
    os.kill(os.getpid(), signal.SIGKILL)

channel, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if not os.fork():
    with transaction.atomic():
        for n in range(first, last + 1):
            send_event(channel, "message", {"channel": channel, "n": n})
        connection.run_on_commit.insert(0, (set(), die, False))
_, status = os.wait()
assert os.WTERMSIG(status) == signal.SIGKILL
"""

KILLED_BEFORE_PUBLISH = """
import os, signal, sys
from django_eventstream import outbox, send_event
channel, n = sys.argv[1], int(sys.argv[2])
if not os.fork():
    outbox.publish = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
    send_event(channel, "message", {"channel": channel, "n": n})
_, status = os.wait()
assert os.WTERMSIG(status) == signal.SIGKILL
"""

KILLED_BEFORE_COMMIT = """
import os, signal, sys
from django.db import transaction
from django_eventstream import send_event
if not os.fork():
    with transaction.atomic():
        send_event(sys.argv[1], "message", "never")
        os.kill(os.getpid(), signal.SIGKILL)
os.wait()
"""

SEND = """
import sys
from django_eventstream import send_event
send_event(sys.argv[1], "message", {"channel": sys.argv[1], "n": int(sys.argv[2])})
"""


def test_a_sender_killed_at_any_statement_leaves_all_or_nothing(default_database):
    points = int(run_python(KILLED_EVERYWHERE, database=default_database.settings))
    channels = [f"killed-{point}" for point in range(points + 1)]
    log = DjangoModelStorage(using=default_database.alias)

    def nothing_waits() -> bool:
        relay_left_behind()
        return not Event.objects.using(log.alias).filter(eid=None).exists()

    wait_until(nothing_waits)
    found = [[(event.id, event.data) for event in log.read(name, 0, 9)] for name in channels]
    both, all_three = [(1, "1"), (2, "2")], [(1, "1"), (2, "2"), (3, "3")]
    assert found == sorted(found)
    assert {len(events) for events in found} == {0, 2, 3}
    assert all(events in ([], both, all_three) for events in found)
    for name, events in zip(channels, found, strict=True):
        counter = EventCounter.objects.using(log.alias).filter(name=name).first()
        assert (counter.value if counter else 0) == len(events)


def test_a_stream_gets_what_killed_processes_committed(database, app_server, unique_channel):
    server = app_server(database)
    url = f"{server.url}/events/?channel={unique_channel}"
    with StreamClient(url) as client:
        client.wait_open()
        for code, *numbers in [
            (KILLED_AFTER_COMMIT, 1, 3),
            (KILLED_BEFORE_COMMIT,),
            (SEND, 4),
            (KILLED_BEFORE_PUBLISH, 5),
            (KILLED_AFTER_COMMIT, 6, 6),
        ]:
            run_python(code, unique_channel, *map(str, numbers), database=database.settings)
            if numbers:
                client.wait_for(lambda c, last=numbers[-1]: c.has(unique_channel, last))
        assert_sequence(client, unique_channel, range(1, 7))
        assert client.of_type("stream-reset") == []


def test_a_stream_that_comes_later_gets_it_too(sqlite_only, app_server, unique_channel):
    run_python(KILLED_AFTER_COMMIT, unique_channel, "1", "3", database=sqlite_only.settings)
    server = app_server(sqlite_only, "uvicorn+wrapper")
    url = f"{server.url}/events/?channel={unique_channel}"
    with StreamClient(url, last_event_id=f"{unique_channel}:0") as client:
        client.wait_for(lambda c: c.has(unique_channel, 3))
        assert_sequence(client, unique_channel, [1, 2, 3])
