"""The examples of `testproject`, with a database of their own, and senders beside the server."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.services.process import ServerProcess, environment
from tests.services.python import ROOT
from tests.services.service import Service

HOST = "127.0.0.1"
PROJECT = ROOT / "testproject"


class Examples(Service):
    name = "examples"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/examples"

    @property
    def environment(self) -> dict[str, str]:
        return environment(
            {
                "DJANGO_SETTINGS_MODULE": "testproject.settings",
                "DEMO_DIRECTORY": str(self.directory),
                "PYTHONPATH": str(ROOT),
            }
        )

    def launch(self) -> ServerProcess:
        if not (self.directory / "db.sqlite3").exists():
            self.manage("migrate", "--verbosity", "0")
        # The warning is of Django's own view of static files.
        argv = ["-W", "ignore:StreamingHttpResponse must consume", "-m", "uvicorn"]
        argv += ["testproject.asgi:application", "--host", HOST, "--port", str(self.port)]
        return self.python(argv, self.log)

    def is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/time/", timeout=5).close()
        except OSError:
            return False
        return True

    def manage(self, *arguments: str) -> None:
        """Runs a management command to its end."""
        argv = [sys.executable, "manage.py", *arguments]
        subprocess.run(argv, cwd=PROJECT, env=self.environment, check=True)

    def background(self, *arguments: str) -> ServerProcess:
        """Starts a management command that runs until it is killed."""
        return self.python(["manage.py", *arguments], self.directory / f"{arguments[0]}.log")

    def python(self, arguments: list[str], log: Path) -> ServerProcess:
        return ServerProcess(
            [sys.executable, *arguments], log=log, env=self.environment, cwd=PROJECT
        )
