"""A Redis server that can be killed and comes back on the same port."""

from __future__ import annotations

import socket

from tests.services.deadline import HEALTHY
from tests.services.missing import program
from tests.services.process import ServerProcess
from tests.services.service import Service


class Redis(Service):
    """With `appendonly`, killed, it keeps what it acknowledged; without, it comes back empty.

    With `fsync="everysec"` it keeps it as well, when nothing but its process ends; it does not
    promise that.
    """

    name = "redis"

    def __init__(
        self, *, appendonly: bool = False, fsync: str = "always", port: int | None = None
    ) -> None:
        self.program = program("redis-server", "redis-server")
        super().__init__(port)
        self.appendonly = appendonly
        self.fsync = fsync

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def launch(self) -> ServerProcess:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes" if self.appendonly else "no",
            "appendfsync": self.fsync,
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        return ServerProcess([self.program, *arguments], log=self.log)

    def is_ready(self) -> bool:
        return self.command("PING").startswith(b"+PONG")

    def flush(self) -> None:
        self.command("FLUSHALL")

    def renew(self) -> None:
        """As if it were new: no data, and none of the programs that it was given before."""
        self.flush()
        self.command("SCRIPT FLUSH")

    def command(self, line: str) -> bytes:
        """The first bytes of the answer to one inline command; none if the server is not there."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=HEALTHY) as connection:
                connection.sendall(line.encode() + b"\r\n")
                return connection.recv(4096)
        except OSError:
            return b""
