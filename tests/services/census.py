"""How many threads a process has at most during a time.

Looked at from a process of its own: one that is as busy as the tests' looks once a second.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.services.deadline import AT_ONCE
from tests.services.python import ROOT

LOOK_SECONDS = 0.005
STAY_SECONDS = 1.0


@dataclass
class Census:
    """Filled in when the time is over."""

    looks: int = 0
    threads: int = 0
    staying_threads: int = 0
    """How many of one moment are there a second later."""


@contextmanager
def census(pid: int) -> Iterator[Census]:
    """Counts the threads of a process from now on."""
    command = [sys.executable, "-m", __name__, str(pid)]
    found = Census()
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as counting:
        try:
            counting.stdout.readline()  # it has begun
            yield found
            answer, _ = counting.communicate(timeout=AT_ONCE)
        finally:
            counting.kill()
    for name, value in json.loads(answer).items():
        setattr(found, name, value)


def count(process: Path) -> Census:
    """Counts until its own standard input is closed."""
    found, earlier = Census(), deque[tuple[float, set[str]]]()
    while not select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
        found.looks += 1
        now, threads = time.monotonic(), {task.name for task in (process / "task").iterdir()}
        found.threads = max(found.threads, len(threads))
        earlier.append((now, threads))
        while earlier[0][0] < now - STAY_SECONDS:
            staying = earlier.popleft()[1] & threads
            found.staying_threads = max(found.staying_threads, len(staying))
    return found


if __name__ == "__main__":
    print("begun", flush=True)
    print(json.dumps(asdict(count(Path(f"/proc/{sys.argv[1]}")))))
