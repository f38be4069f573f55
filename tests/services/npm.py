"""Packages of npm for the browser, installed once into a cache directory."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.services.missing import program
from tests.services.process import environment

INSTALL_TIMEOUT = 300
OPTIONS = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]


def installed(manifest: Path, cache: Path) -> Path:
    """The `node_modules` of a `package.json`; without them the test is skipped, or fails.

    The contributor's own npm settings say where packages come from.
    """
    npm = program("npm", "npm")
    directory = cache / hashlib.sha256(manifest.read_bytes()).hexdigest()[:16]
    done = directory / "installed"
    directory.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.copy(manifest, directory)
            install(npm, directory)
            done.touch()
    return directory / "node_modules"


def install(npm: str, directory: Path) -> None:
    try:
        ended = subprocess.run(
            [npm, "install", *OPTIONS], cwd=directory, env=environment(), text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=INSTALL_TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        not_installed(str(error))
    if ended.returncode:
        not_installed(ended.stderr.strip()[-500:])


def not_installed(problem: str) -> None:
    reason = f"npm cannot install what front ends need: {problem}"
    if os.environ.get("EVENTSTREAM_REQUIRE_SERVICES"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
