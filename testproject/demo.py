#!/usr/bin/env python
"""The demo: `make demo`, or `python testproject/demo.py` where the package is installed.

Starts a server and a ticker, each a process of its own, starts either again when it dies, and
ends both when it is asked to stop.
"""

import argparse
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
START_SECONDS = 60
STOP_SECONDS = 10
PAUSE = 0.1

# A child that dies this often at once has a reason, and is not started again.
MOST_DEATHS = 5
DEATHS_SECONDS = 10

SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)

BANNER = """
  The demo runs at  {url}

    Open it in two windows, side by side, and write something.
    To kill the server under them:  kill -9 {server}
    To stop the demo:               Ctrl-C
"""


class DemoError(Exception):
    """The demo cannot run; the message says why."""


class Child:
    """A process that belongs to the demo and is started again when it dies."""

    def __init__(self, name, arguments, environment):
        self.name = name
        self.arguments = [sys.executable, *arguments]
        self.environment = environment
        self.deaths = []
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            self.arguments, cwd=HERE, env=self.environment, preexec_fn=belong_to_parent
        )

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process.poll() is None

    def revive(self):
        """Start it again if it died; raise DemoError if that does not help."""
        if self.is_running():
            return
        say(f"The {self.name} {how_it_ended(self.process.returncode)}; starting another one.")
        now = time.monotonic()
        self.deaths = [death for death in self.deaths if now - death < DEATHS_SECONDS] + [now]
        if len(self.deaths) == MOST_DEATHS:
            raise DemoError(f"The {self.name} keeps dying; what it printed above says why.")
        self.start()

    def stop(self):
        """Ask it to end, and wait until it has."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def main():
    """Run until asked to stop; return the exit status."""
    options = parse_arguments()
    stopped = threading.Event()
    # SIGHUP is what a closed terminal sends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopped.set())
    options.directory.mkdir(parents=True, exist_ok=True)
    with (options.directory / "running").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            say(f"The demo is running already: {lock.read() or 'it is just starting'}")
            return 0
        lock.truncate(0)
        try:
            run(options, lock, stopped)
        except DemoError as error:
            say(str(error))
            return 1
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description="Runs the demo of django-reliable-eventstream.")
    parser.add_argument(
        "--port", type=int, default=8000, help="the first port to try (default: %(default)s)"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=HERE.parent / ".demo",
        help="where the database is kept (default: .demo beside testproject)",
    )
    return parser.parse_args()


def run(options, lock, stopped):
    """Start everything, keep it running, and leave nothing behind."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "testproject.settings",
        "DEMO_DIRECTORY": str(options.directory.resolve()),
        "DEMO_SERVER_IS_RESTARTED": "1",
    }
    require_packages()
    migrate(environment)
    port = free_port(options.port)
    url = f"http://{HOST}:{port}/"
    children = []
    try:
        server = Child("server", server_arguments(port), environment)
        children.append(server)
        children.append(Child("ticker", ["manage.py", "ticker"], environment))
        wait_for_page(port, server, stopped)
        if not stopped.is_set():
            lock.write(url)
            lock.flush()
            say(BANNER.format(url=url, server=server.pid))
        while not stopped.wait(PAUSE):
            for child in children:
                child.revive()
    finally:
        for child in children:
            child.stop()
    say("\nThe demo has stopped.")


def require_packages():
    absent = [
        name
        for name in ("django_eventstream", "rest_framework", "uvicorn")
        if find_spec(name) is None
    ]
    if absent:
        raise DemoError(f"{' and '.join(absent)} cannot be imported; `make demo` installs all.")


def migrate(environment):
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    done = subprocess.run(
        command, cwd=HERE, env=environment, preexec_fn=belong_to_parent, check=False
    )
    if done.returncode:
        raise DemoError(f"The database in {environment['DEMO_DIRECTORY']} could not be set up.")


def server_arguments(port):
    return [
        # It is Django's own view of static files that does this; nothing that a visitor can mend.
        *("-W", "ignore:StreamingHttpResponse must consume"),
        *("-m", "uvicorn", "testproject.asgi:application"),
        *("--host", HOST, "--port", str(port), "--log-level", "warning"),
    ]


def free_port(first):
    for port in range(first, min(first + 100, 65_536)):
        with closing(socket.socket()) as probe, suppress(OSError):
            # As servers do it: a port is free although old connections to it still fade out.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise DemoError(f"None of the ports from {first} on is free.")


def wait_for_page(port, server, stopped):
    deadline = time.monotonic() + START_SECONDS
    while not stopped.wait(PAUSE):
        if not server.is_running():
            raise DemoError(f"The server {how_it_ended(server.process.returncode)}.")
        if time.monotonic() > deadline:
            raise DemoError(f"The server did not answer for {START_SECONDS} seconds.")
        with suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"http://{HOST}:{port}/", timeout=5).close()
            return


def belong_to_parent():
    """Between fork and exec: no Ctrl-C from the terminal, and no life after the parent's."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def how_it_ended(status):
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def say(text):
    # A terminal that was closed is no reason to leave the children behind.
    with suppress(OSError):
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
