"""The demo, as `make demo` runs it, with a database of its own."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from tests.services import reaper
from tests.services.process import ServerProcess, environment
from tests.services.python import ROOT
from tests.services.service import Service

HOST = "127.0.0.1"


class Demo(Service):
    name = "demo"
    ready_timeout = 60

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def launch(self) -> ServerProcess:
        argv = [sys.executable, str(ROOT / "testproject" / "demo.py")]
        argv += ["--port", str(self.port), "--directory", str(self.data)]
        self.log.write_text("")
        return ServerProcess(argv, log=self.log, env=environment({"PYTHONPATH": str(ROOT)}))

    def is_ready(self) -> bool:
        return f"runs at  {self.url}" in self.process.log_text()

    def child(self, word: str) -> int | None:
        """The process of the demo with this word in its command line; None if there is none."""
        for pid in reaper.processes_of_session(self.pid):
            if word in command_line(pid) and pid != self.pid:
                return pid
        return None

    @property
    def server(self) -> int | None:
        return self.child("uvicorn")

    def kill_server(self) -> None:
        os.kill(self.server, signal.SIGKILL)

    def ids(self, channel: str) -> list[int]:
        """The ids of a channel, as they are in the log."""
        select = (
            "SELECT eid FROM django_eventstream_event WHERE channel = ? AND eid > 0 ORDER BY eid"
        )
        with closing(sqlite3.connect(self.data / "db.sqlite3")) as connection:
            return [row[0] for row in connection.execute(select, [channel])]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
