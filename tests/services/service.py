"""What all services share: start, terminate, kill, restart; always the same port and directory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from tests.services.deadline import HEALTHY, STOPPING
from tests.services.ports import free_port
from tests.services.process import ServerProcess, private_directory, remove_directory


class Service(ABC):
    """A server of one kind. Made stopped; `start()` returns when it answers.

    `terminate()` and `kill()` leave the port and the data as they are, so that `start()` goes on
    from there. `close()` ends it for good; as a context manager it is started and closed.
    """

    name: str
    ready_timeout = HEALTHY

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.directory = private_directory(self.name)
        self.log = self.directory / f"{self.name}.log"
        self.process: ServerProcess | None = None

    @abstractmethod
    def launch(self) -> ServerProcess: ...

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers like itself; an open port alone proves little."""

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.is_running

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} is not started"
        return self.process.pid

    def start(self) -> None:
        assert not self.is_running, f"{self.name} runs already"
        self.process = self.launch()
        self.process.wait_ready(self.is_ready, self.ready_timeout)

    def terminate(self, timeout: float = STOPPING) -> int | None:
        """SIGTERM, then wait; the exit status."""
        return self.process.terminate(timeout) if self.process else None

    def kill(self) -> None:
        """SIGKILL to every process of it."""
        if self.process:
            self.process.kill()

    def restart(self) -> None:
        self.terminate()
        self.start()

    def close(self) -> None:
        self.kill()
        remove_directory(self.directory)

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def data_directory(self, name: str = "data") -> Path:
        return self.directory / name

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
