"""PgBouncer in front of one database of a PostgreSQL. It refuses to run as root, as that does."""

from __future__ import annotations

import subprocess

from tests.services.databases import Database
from tests.services.missing import program
from tests.services.postgres import Postgres, lend
from tests.services.process import ServerProcess
from tests.services.service import Service

MODES = {"transaction": 4, "session": 20}
"""And how many sessions it has with PostgreSQL. The fewer, the more often a client meets one that
was another's; in session mode each client has one to itself."""


class PgBouncer(Service):
    """Each of its `MODES` is a database by this name, which all clients find the same."""

    name = "pgbouncer"

    def __init__(self, database: Database) -> None:
        self.program = program("pgbouncer", "pgbouncer")
        super().__init__()
        self.run_as = lend(self.directory)
        assert isinstance(database.server, Postgres)
        self.database = database
        place = f"host=127.0.0.1 port={database.server.port} dbname={database.settings['NAME']}"
        lines = [
            "[databases]",
            *(
                f"{mode} = {place} user=postgres pool_mode={mode} pool_size={size}"
                for mode, size in MODES.items()
            ),
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = any",
        ]
        self.configuration = self.directory / "pgbouncer.ini"
        self.configuration.write_text("\n".join(lines))

    def launch(self) -> ServerProcess:
        argv = [*self.run_as, self.program, str(self.configuration)]
        return ServerProcess(argv, log=self.log, cwd=self.directory)

    def is_ready(self) -> bool:
        assert isinstance(self.database.server, Postgres)
        argv = [str(self.database.server.bin / "pg_isready"), "-q", "-h", "127.0.0.1"]
        return subprocess.run([*argv, "-p", str(self.port), "-d", "session"]).returncode == 0

    def django_settings(self, mode: str) -> dict[str, object]:
        """`DATABASES["default"]` of a project behind it."""
        return {**self.database.settings, "NAME": mode, "PORT": str(self.port)}
