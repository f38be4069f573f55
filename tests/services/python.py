"""Python in another process, with the tests' Django set up: a shell, a worker, a command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.services.process import ServerProcess, environment

ROOT = Path(__file__).resolve().parents[2]
SETUP = "import django; django.setup()\n"


def django_environment(
    database: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a process that uses `tests.settings`, with this database and these."""
    variables = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT)}
    if database is not None:
        variables["EVENTSTREAM_TEST_DATABASE"] = json.dumps(database)
    if settings is not None:
        variables["EVENTSTREAM_TEST_SETTINGS"] = json.dumps(settings)
    return environment({**variables, **(env or {})})


def run_python(code: str, *arguments: str, timeout: float = 60, **environment_of: Mapping) -> str:
    """Runs code to its end after `django.setup()`; what it printed. Raises if it fails.

    `arguments` become `sys.argv[1:]`; the keywords are those of `django_environment()`.
    """
    return run(["-c", SETUP + code, *arguments], timeout, django_environment(**environment_of))


def manage(*arguments: str, timeout: float = 60, **environment_of: Mapping) -> str:
    """Runs a management command to its end; what it printed. Raises if it fails."""
    return run(["-m", "django", *arguments], timeout, django_environment(**environment_of))


def start_python(code: str, *arguments: str, log: Path, **environment_of: Mapping) -> ServerProcess:
    """Starts code in the background, to `wait()` for or to `kill()`; see its `log_text()`."""
    argv = [sys.executable, "-c", SETUP + code, *arguments]
    return ServerProcess(argv, log=log, env=django_environment(**environment_of), cwd=ROOT)


def run(arguments: list[str], timeout: float, env: Mapping[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode:
        raise RuntimeError(f"python {arguments[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
