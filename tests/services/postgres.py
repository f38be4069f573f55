"""A PostgreSQL cluster. It refuses to run as root, so root lends it to an unprivileged user."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from tests.services.missing import missing, program
from tests.services.process import ServerProcess
from tests.services.service import Service

# It lives for one test run: what the disk has after a power cut is of no interest. A kill -9 still
# keeps every commit, since the kernel has it.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "listen_addresses": "127.0.0.1"}


class Postgres(Service):
    """Trusts everybody on loopback as `postgres`; keeps the default limit of 100 connections."""

    name = "postgres"

    def __init__(self, port: int | None = None) -> None:
        self.bin = binaries()
        super().__init__(port)
        self.data = self.data_directory()
        self.run_as = lend(self.directory)
        self.run(
            "initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip

    def run(self, name: str, *arguments: str) -> str:
        """One of PostgreSQL's programs, to its end; its output."""
        done = subprocess.run(
            [*self.run_as, str(self.bin / name), *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def launch(self) -> ServerProcess:
        settings = {
            **SETTINGS,
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        argv = [*self.run_as, str(self.bin / "postgres"), "-D", str(self.data), *options]
        return ServerProcess(argv, log=self.log, cwd=self.directory)

    def is_ready(self) -> bool:
        argv = [str(self.bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(argv).returncode == 0

    def sql(self, statement: str, database: str = "postgres") -> str:
        """The result of one statement, unaligned and without headers."""
        return self.run(
            "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database,
            "-v", "ON_ERROR_STOP=1", "-Atqc", statement,
        ).strip()  # fmt: skip

    def create_database(self, name: str) -> None:
        self.sql(f'CREATE DATABASE "{name}"')

    def connections(self, database: str) -> int:
        """How many clients are connected to a database now."""
        return int(self.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"))

    def django_settings(self, name: str) -> dict[str, object]:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "USER": "postgres",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
        }


def binaries() -> Path:
    """The newest installed version's programs; Debian keeps them out of the PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4])
    )
    if found:
        return found[-1].parent
    if initdb := shutil.which("initdb"):
        return Path(initdb).parent
    missing("PostgreSQL", "postgresql")


def lend(directory: Path) -> list[str]:
    """Lets an unprivileged user have a directory, if we are root; what to run programs with."""
    if os.geteuid() != 0:
        return []
    user = unprivileged_user()
    os.chown(directory, user.pw_uid, user.pw_gid)
    setpriv = program("setpriv", "util-linux")
    return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def unprivileged_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
