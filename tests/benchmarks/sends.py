"""What sending costs: statements and rate, on each database, with little and with much stored."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils import timezone

from django_eventstream import housekeeping, send_event, send_events
from tests.benchmarks import predecessor
from tests.benchmarks.figures import show
from tests.benchmarks.stores import TITLES, assert_log, fill_with_a_million, new_channel, store
from tests.services.databases import Database
from tests.services.deadline import wait_until
from tests.services.process import private_directory, remove_directory
from tests.services.python import run_python

SECONDS = 2.0
COUNTED = 50
DATA = {"text": "x" * 150}
BULK = 1_000

FRAME = re.compile("(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE)")

WORKER = """
import sys, time
from pathlib import Path
from django_eventstream import send_event
channel, name, directory, seconds = sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])
send_event(channel, "message", {"text": "x" * 150})
(directory / f"ready-{name}").touch()
while not (directory / "go").exists():
    time.sleep(0.005)
end, sent = time.monotonic() + seconds, 0
while time.monotonic() < end:
    send_event(channel, "message", {"text": "x" * 150})
    sent += 1
print(sent)
"""


@dataclass
class Run:
    """Calls one way of sending, again and again."""

    send: Callable[[], object]
    calls: int = 0
    durations: list[float] = field(default_factory=list)
    cpu_seconds: float = 0

    def count_statements(self) -> float:
        with CaptureQueriesContext(connection) as captured:
            for _ in range(COUNTED):
                self.send()
        self.calls += COUNTED
        return sum(not FRAME.match(query["sql"]) for query in captured) / COUNTED

    def go(self, seconds: float = SECONDS) -> None:
        end, used = time.monotonic() + seconds, time.process_time()
        while (begin := time.monotonic()) < end:
            self.send()
            self.durations.append(time.monotonic() - begin)
        self.cpu_seconds += time.process_time() - used
        self.calls += len(self.durations)

    @property
    def rate(self) -> float:
        return len(self.durations) / sum(self.durations)

    @property
    def cost(self) -> str:
        cpu = self.cpu_seconds / len(self.durations) * 1e6
        return f"{cpu:.0f} µs CPU of the sender, the slowest {max(self.durations) * 1e3:.1f} ms"


def main() -> None:
    for name in TITLES:
        with store(name) as database:
            on_one_database(TITLES[name])
            if name == "postgres":
                in_several_processes(database)
    predecessor.main()


def on_one_database(title: str) -> None:
    channel = new_channel()
    send_events([(channel, "message", DATA)] * 10)
    single(f"{title}, 10 events stored", channel, 10)
    in_transactions(title)
    in_bulk(title)
    full = new_channel()
    fill_with_a_million(full, timezone.now() - timedelta(hours=1))
    last = single(f"{title}, 1,000,000 stored", full, 1_000_000)
    with override_settings(EVENTSTREAM_RETENTION_SECONDS=1800), trimming_is_due():
        single(f"{title}, 1,000,000 expired, being trimmed meanwhile", full, last)


def single(title: str, channel: str, stored: int) -> int:
    """The channel's last id after `stored` and what this adds."""
    run = Run(lambda: send_event(channel, "message", DATA))
    statements = run.count_statements()
    run.go()
    assert_log(channel, stored + run.calls)
    show("sends", f"{title}: {run.rate:,.0f} sends/s, {statements:.2g} statements each, {run.cost}")
    return stored + run.calls


def in_transactions(title: str) -> None:
    channel = new_channel()

    def send() -> None:
        with transaction.atomic():
            send_event(channel, "message", DATA)

    run = Run(send)
    statements = run.count_statements()
    run.go()
    assert_log(channel, run.calls)
    show(
        "sends",
        f"{title}, each in a transaction: {run.rate:,.0f} sends/s, "
        f"{statements:.2g} statements, commit included, {run.cost}",
    )


def in_bulk(title: str) -> None:
    channel = new_channel()
    run = Run(lambda: send_events([(channel, "message", DATA)] * BULK))
    run.go()
    assert_log(channel, run.calls * BULK)
    show("sends", f"{title}, send_events() of {BULK:,}: {run.rate * BULK:,.0f} events/s")


@contextmanager
def trimming_is_due() -> Iterator[None]:
    """A process sweeps for the first time when it is a minute old; this one is."""
    usual = housekeeping.housekeeper
    housekeeping.housekeeper = housekeeping.Housekeeper()
    housekeeping.housekeeper._due = 0
    try:
        yield
    finally:
        housekeeping.housekeeper.finish(time.monotonic() + 60)
        housekeeping.housekeeper = usual


def in_several_processes(database: Database) -> None:
    rates = {processes: rate_of(processes, database) for processes in (1, 4)}
    show(
        "sends",
        f"{TITLES['postgres']}, one channel: 1 process {rates[1]:,.0f} sends/s, "
        f"4 processes {rates[4]:,.0f} together",
    )


def rate_of(processes: int, database: Database) -> float:
    channel, directory = new_channel(), private_directory("bench")

    def work(name: int) -> int:
        arguments = (channel, str(name), str(directory), str(SECONDS))
        return int(run_python(WORKER, *arguments, database=database.settings))

    with ThreadPoolExecutor(processes) as pool:
        working = [pool.submit(work, name) for name in range(processes)]
        wait_until(lambda: len(list(directory.glob("ready-*"))) == processes, 60)
        (directory / "go").touch()
        sent = sum(work.result() for work in working)
    remove_directory(directory)
    assert_log(channel, sent + processes)
    return sent / SECONDS
