"""A MariaDB server; its `root` needs no password on loopback."""

from __future__ import annotations

import getpass
import subprocess

from tests.services.missing import program
from tests.services.process import ServerProcess
from tests.services.service import Service

PACKAGE = "mariadb-server"
# Written to the kernel at each commit, to the disk when it likes: a kill -9 keeps every commit.
SETTINGS = {
    "bind-address": "127.0.0.1",
    "character-set-server": "utf8mb4",
    "innodb-buffer-pool-size": "64M",
    "innodb-flush-log-at-trx-commit": "2",
    "skip-name-resolve": "1",
}


class MariaDB(Service):
    name = "mariadb"

    def __init__(self, port: int | None = None) -> None:
        self.server = program("mariadbd", PACKAGE)
        self.client = program("mariadb", PACKAGE)
        install = program("mariadb-install-db", PACKAGE)
        super().__init__(port)
        self.data = self.data_directory()
        self.socket = self.directory / "socket"
        self.common = [
            "--no-defaults",
            f"--datadir={self.data}",
            # In a shared one, each server that starts deletes the temporary tables of the others:
            # of two that were installed at the same time one failed.
            f"--tmpdir={self.directory}",
            "--innodb-log-file-size=8M",
            # As root it insists on being told that this is meant.
            f"--user={getpass.getuser()}",
        ]
        done = subprocess.run(
            [install, *self.common, "--auth-root-authentication-method=normal", "--skip-test-db"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db failed: {done.stdout}{done.stderr}")

    def launch(self) -> ServerProcess:
        settings = {**SETTINGS, "port": str(self.port), "socket": str(self.socket)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return ServerProcess([self.server, *self.common, *options], log=self.log)

    def is_ready(self) -> bool:
        return self.query("SELECT 1").returncode == 0

    def sql(self, statement: str, database: str = "mysql") -> str:
        """The result of one statement, tabs between values, without headers."""
        done = self.query(statement, database)
        if done.returncode:
            raise RuntimeError(f"{statement}: {done.stderr}")
        return done.stdout.strip()

    def query(self, statement: str, database: str = "mysql") -> subprocess.CompletedProcess[str]:
        argv = [
            self.client, "--no-defaults", "--protocol=tcp", "--host=127.0.0.1",
            f"--port={self.port}", "--user=root", f"--database={database}",
            "--batch", "--skip-column-names", "--execute", statement,
        ]  # fmt: skip
        return subprocess.run(argv, capture_output=True, text=True)

    def create_database(self, name: str) -> None:
        self.sql(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")

    def connections(self, database: str) -> int:
        """How many clients are connected to a database now."""
        table = "information_schema.processlist"
        return int(self.sql(f"SELECT count(*) FROM {table} WHERE db = '{database}'"))

    def django_settings(self, name: str) -> dict[str, object]:
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": name,
            "USER": "root",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "OPTIONS": {"charset": "utf8mb4"},
        }
