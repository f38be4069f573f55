"""A server process: its own session, its log in a file, and no way to outlive the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.services import reaper
from tests.services.deadline import HEALTHY, STOPPING, wait_until

LOG_TAIL = 6_000


def private_directory(name: str) -> Path:
    """A new directory with a short path: a unix socket in it must fit into about 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix=f"es-{name}-"))
    reaper.register("directory", path)
    return path


def remove_directory(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    reaper.forget("directory", path)


class ServerProcess:
    """One run of a server. `terminate()` and `kill()` return when all its processes are gone."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        reaper.register("session", self.popen.pid)

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def is_running(self) -> bool:
        return self.popen.poll() is None

    def wait_ready(self, is_ready: Callable[[], bool], timeout: float = HEALTHY) -> None:
        """Waits for `is_ready()`; reports a server that died or is late with its log."""
        try:
            wait_until(
                lambda: not self.is_running or is_ready(), timeout, lambda: self.report("is late")
            )
        except TimeoutError:
            self.kill()
            raise
        if not self.is_running:
            self.kill()
            raise RuntimeError(self.report(f"ended with status {self.popen.returncode}"))

    def terminate(self, timeout: float = STOPPING) -> int:
        """Asks it to stop; its exit status. If it does not, it is killed: `TimeoutError`."""
        return self.stop(signal.SIGTERM, timeout)

    def kill(self) -> int:
        return self.stop(signal.SIGKILL, HEALTHY)

    def wait(self, timeout: float = 60) -> int:
        """Waits for it to end by itself; its exit status."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(self.report(f"still runs after {timeout} s")) from None
        finally:
            self.bury()

    def stop(self, sign: signal.Signals, timeout: float) -> int:
        try:
            if self.is_running:
                self.popen.send_signal(sign)
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(self.report(f"still runs {timeout} s after {sign.name}")) from None
        finally:
            self.bury()

    def bury(self) -> None:
        reaper.kill_session(self.pid)
        self.popen.wait()
        reaper.forget("session", self.pid)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def report(self, what: str) -> str:
        tail = self.log_text()[-LOG_TAIL:]
        return f"{Path(self.popen.args[0]).name} {what}; its log ends with:\n{tail}"


def heed_interrupts() -> None:
    """Undoes that SIGINT is ignored: servers that are started from now on would ignore it, too.

    It is where a shell without job control runs the tests in the background.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with changes, as a server process gets it."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", **(changes or {})}
