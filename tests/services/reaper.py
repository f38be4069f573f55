"""Stops what the tests started, even when their process is killed and can stop nothing itself.

One helper process, started with the first service, reads orders from a pipe. The pipe ends when the
test process does, however it dies; then the helper kills every session that is still registered,
and removes every directory.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path


def register(kind: str, what: object) -> None:
    """Has `what`, a `session` (its leader's pid) or a `directory`, cleared away in the end."""
    order("+", kind, what)


def forget(kind: str, what: object) -> None:
    order("-", kind, what)


def kill_session(leader: int, timeout: float = 45) -> None:
    """Kills every process of a session, until none is left: a dying one may still have forked."""
    deadline = time.monotonic() + timeout
    while pids := processes_of_session(leader):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {pids} of session {leader} do not die")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def processes_of_session(leader: int) -> list[int]:
    return [pid for pid in running_processes() if session_of(pid) == leader]


def running_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def session_of(pid: int) -> int | None:
    """The session of a process that runs; None if it is dead, also if nobody has buried it yet."""
    try:
        # "pid (any name) state parent group session …", the number of threads as the 18th of these
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie whose other threads are still on their way out holds its files and ports.
    is_dead = status[0] in "ZX" and int(status[17]) <= 1
    return None if is_dead else int(status[3])


def order(sign: str, kind: str, what: object) -> None:
    pipe = start().stdin
    assert pipe is not None
    pipe.write(f"{sign} {kind} {what}\n")
    pipe.flush()


@cache
def start() -> subprocess.Popen[str]:
    helper = subprocess.Popen(
        [sys.executable, "-I", __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
    )
    atexit.register(helper.communicate)
    return helper


def main() -> None:
    registered: list[tuple[str, str]] = []
    for line in sys.stdin:
        sign, kind, what = line.rstrip("\n").split(" ", 2)
        if sign == "+":
            registered.append((kind, what))
        else:
            with suppress(ValueError):
                registered.remove((kind, what))
    # What was started last may need what was started first; directories go when nobody writes.
    for kind, what in reversed(registered):
        if kind == "session":
            kill_session(int(what))
    for kind, what in registered:
        if kind == "directory":
            shutil.rmtree(what, ignore_errors=True)


if __name__ == "__main__":
    main()
