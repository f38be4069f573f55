"""The real django-eventstream 5.3.4, in a virtual environment of its own, and a server of it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.services import reaper
from tests.services.deadline import HEALTHY
from tests.services.process import ServerProcess, environment
from tests.services.service import Service

REQUIREMENT = "django-eventstream==5.3.4"
PROJECT = Path(__file__).resolve().parent.parent / "predecessor"
HOST = "127.0.0.1"
INSTALL_TIMEOUT = 600

COMMANDS = {
    "uvicorn": ["uvicorn", "old_asgi:application", "--host", HOST, "--port"],
    "gunicorn": [
        "gunicorn", "old_wsgi:application", "--workers", "1", "--threads", "16",
        "--no-control-socket", "--bind",
    ],
}  # fmt: skip


class Predecessor:
    """Its environment, made once and kept in a cache directory."""

    def __init__(self, python: Path) -> None:
        self.python = python

    @classmethod
    def install(cls, cache: Path) -> Predecessor:
        """Makes the environment if need be; without it the test is skipped, or fails.

        The contributor's own pip settings say where packages come from.
        """
        directory = cache / f"{REQUIREMENT}-python{sys.version_info.major}.{sys.version_info.minor}"
        python, installed = directory / "bin" / "python", directory / "installed"
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not installed.exists():
                make_environment(directory, python)
                installed.touch()
        return cls(python)

    def run(self, *arguments: str, database: Mapping[str, Any], **settings: object) -> str:
        """Runs its Python to the end; what it printed."""
        return run([str(self.python), *arguments], env=old_environment(database, settings))

    def manage(self, *arguments: str, database: Mapping[str, Any]) -> str:
        """Runs a management command of its project."""
        return self.run("-m", "django", *arguments, database=database)

    def shell(self, code: str, *, database: Mapping[str, Any]) -> Any:
        """Runs code with its Django set up; what the code printed, as JSON."""
        setup = f"import json, django; django.setup()\n{code}"
        return json.loads(self.run("-c", setup, database=database) or "null")


class OldServer(Service):
    """Its project in a server process: `uvicorn`, or `gunicorn` behind a proxy."""

    name = "old"

    def __init__(
        self,
        predecessor: Predecessor,
        kind: str = "uvicorn",
        *,
        database: Mapping[str, Any],
        settings: Mapping[str, object] | None = None,
        port: int | None = None,
    ) -> None:
        super().__init__(port)
        self.python = predecessor.python
        self.kind = kind
        self.env = old_environment(database, settings or {})

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def launch(self) -> ServerProcess:
        address = str(self.port) if self.kind == "uvicorn" else f"{HOST}:{self.port}"
        argv = [str(self.python), "-m", *COMMANDS[self.kind], address]
        return ServerProcess(argv, log=self.log, env=self.env, cwd=PROJECT)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/stats/", timeout=HEALTHY) as answer:
                return reaper.session_of(json.load(answer)["pid"]) == self.pid
        except OSError:
            return False

    def send(self, *events: tuple[str, str, Any]) -> None:
        """Makes the server process send; text is sent as it is, everything else as JSON."""
        body = json.dumps(events).encode()
        urllib.request.urlopen(f"{self.url}/send/", data=body, timeout=HEALTHY).close()


def make_environment(directory: Path, python: Path) -> None:
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(directory)],
        [str(python), "-m", "pip", "install", "--quiet", REQUIREMENT],
    ]
    for argv in steps:
        try:
            run(argv, env=environment(), timeout=INSTALL_TIMEOUT)
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
            not_installed(str(error).strip().splitlines()[-1])
    # Last in its path: the drivers of the databases, and the servers, which are compiled.
    [packages] = directory.glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")


def not_installed(problem: str) -> None:
    reason = f"pip cannot install {REQUIREMENT}: {problem}"
    if os.environ.get("EVENTSTREAM_REQUIRE_SERVICES"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def old_environment(database: Mapping[str, Any], settings: Mapping[str, object]) -> dict[str, str]:
    return environment(
        {
            "DJANGO_SETTINGS_MODULE": "old_settings",
            "PYTHONPATH": str(PROJECT),
            "EVENTSTREAM_TEST_DATABASE": json.dumps(database),
            "EVENTSTREAM_TEST_SETTINGS": json.dumps(settings),
        }
    )


def run(argv: list[str], *, env: Mapping[str, str], timeout: float = 120) -> str:
    done = subprocess.run(
        argv, cwd=PROJECT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=timeout,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{argv[1:3]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
