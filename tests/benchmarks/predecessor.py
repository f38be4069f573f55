"""The same sends by us and by django-eventstream 5.3.4, in turns, each to a database of its own.

The predecessor is installed by pip, for the time of the run; without it there is nothing to show.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.figures import show
from tests.benchmarks.stores import SERVERS, TITLES, new_channel
from tests.services.deadline import wait_until
from tests.services.process import private_directory, remove_directory
from tests.services.python import ROOT, SETUP, django_environment
from tests.settings import sqlite

PREDECESSOR = "django-eventstream==5.3.4"
SETTINGS = {
    "EVENTSTREAM_STORAGE_CLASS": "django_eventstream.storage.DjangoModelStorage",
    # The tests' own views need our package.
    "ROOT_URLCONF": "django.contrib.auth.urls",
}
ROUNDS = 3
SECONDS = 1.5
READY_SECONDS = 60

WORKER = """
import json, resource, sys, time
from contextlib import nullcontext
from pathlib import Path
from django.db import transaction
from django_eventstream import send_event
channel, way, name, directory, seconds = *sys.argv[1:4], Path(sys.argv[4]), float(sys.argv[5])
frame = transaction.atomic if way == "transaction" else nullcontext
def send():
    with frame():
        send_event(channel, "message", {"text": "x" * 150})
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
for warm in range(20):
    send()
(directory / f"ready-{name}").touch()
while not (directory / "go").exists():
    time.sleep(0.005)
sent, before, end = 0, used(), time.monotonic() + seconds
while time.monotonic() < end:
    send()
    sent += 1
print(json.dumps([sent, used() - before]))
"""

CHECK = """
import sys
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute(
        "SELECT COUNT(*), COUNT(DISTINCT eid), MIN(eid), MAX(eid)"
        " FROM django_eventstream_event WHERE channel = %s AND eid > 0", sys.argv[1:])
    print(*cursor.fetchone())
"""


@dataclass(frozen=True)
class Sender:
    """One of the two packages, and the database that it sends to."""

    title: str
    path: str
    database: Mapping[str, object]

    def python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            # Not where the repository is, whose package would be found first.
            cwd="/",
            env=django_environment(self.database, SETTINGS, {"PYTHONPATH": self.path}),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{self.title} failed: {done.stderr}")
        return done.stdout

    def run(self, way: str, processes: int) -> tuple[float, float]:
        """Sends per second of all processes together, and CPU seconds for each send."""
        channel, directory = new_channel(), private_directory("bench")

        def work(number: int) -> tuple[int, float]:
            arguments = (channel, way, str(number), str(directory), str(SECONDS))
            sent, used = json.loads(self.python("-c", SETUP + WORKER, *arguments))
            return sent, used

        with ThreadPoolExecutor(processes) as pool:
            working = [pool.submit(work, number) for number in range(processes)]
            wait_until(lambda: len(list(directory.glob("ready-*"))) == processes, READY_SECONDS)
            (directory / "go").touch()
            done = [result.result() for result in working]
        remove_directory(directory)
        sent = sum(count for count, _ in done)
        self.check(channel, sent + 20 * processes)
        return sent / SECONDS, sum(used for _, used in done) / sent

    def check(self, channel: str, sent: int) -> None:
        found = list(map(int, self.python("-c", SETUP + CHECK, channel).split()))
        assert found == [sent, sent, 1, sent], f"{self.title}: {sent} sent, but found {found}"


def main() -> None:
    with installed() as path:
        if path is None:
            show("sends", f"SKIPPED the comparison: pip could not install {PREDECESSOR}")
            return
        compare("sqlite", path, [("event", 1), ("transaction", 1)])
        everywhere = [("event", 1), ("event", 4), ("transaction", 1), ("transaction", 4)]
        compare("postgres", path, everywhere)


@contextmanager
def installed() -> Iterator[str | None]:
    """Where the predecessor is, beside what it needs, which we need as well; None without it."""
    directory = private_directory("predecessor")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    done = subprocess.run([*pip, "--target", str(directory), PREDECESSOR], capture_output=True)
    try:
        yield None if done.returncode else str(directory)
    finally:
        remove_directory(directory)


@contextmanager
def databases(name: str) -> Iterator[list[dict[str, object]]]:
    """Two new databases of that kind, on one server."""
    with ExitStack() as stack:
        if name == "sqlite":
            directory = private_directory("bench")
            stack.callback(remove_directory, directory)
            yield [sqlite(str(Path(directory, f"{owner}.sqlite3"))) for owner in ("ours", "theirs")]
            return
        server = stack.enter_context(SERVERS[name]())
        for owner in ("ours", "theirs"):
            server.create_database(owner)
        yield [server.django_settings(owner) for owner in ("ours", "theirs")]


def compare(name: str, path: str, ways: list[tuple[str, int]]) -> None:
    with databases(name) as (ours, theirs):
        senders = [Sender("ours", str(ROOT), ours), Sender("5.3.4", f"{path}:{ROOT}", theirs)]
        for sender in senders:
            sender.python("-m", "django", "migrate", "--verbosity=0")
        found = defaultdict(list)
        for _ in range(ROUNDS):
            for way in ways:
                for sender in senders:
                    found[way, sender.title].append(sender.run(*way))
        for way, processes in ways:
            figures = {}
            for sender in senders:
                rates, costs = zip(*found[(way, processes), sender.title], strict=True)
                figures[sender.title] = statistics.median(rates), statistics.median(costs) * 1e6
            show_figures(f"{TITLES[name]}, {described(way, processes)}", figures)


def described(way: str, processes: int) -> str:
    what = "send_event()" if way == "event" else "one send_event() per transaction"
    return f"{what}, {processes} process" + ("es on one channel" if processes > 1 else "")


def show_figures(title: str, figures: dict[str, tuple[float, float]]) -> None:
    texts = [f"{who} {rate:,.0f}/s ({cost:,.0f} µs CPU)" for who, (rate, cost) in figures.items()]
    times = figures["ours"][0] / figures["5.3.4"][0]
    show("sends", f"{title}: {', '.join(texts)}: {times:.1f} times as many")
