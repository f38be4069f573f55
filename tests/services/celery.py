"""A Celery worker that runs the tasks of `tests.celery_worker`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping

from celery import Celery

from tests.services.databases import Database
from tests.services.process import ServerProcess
from tests.services.python import ROOT, django_environment
from tests.services.redis import Redis
from tests.services.service import Service

LAST_WORDS = "sends what it has left"
"""What a process of the prefork pool says when it ends."""

QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class CeleryWorker(Service):
    """`pool` is one of Celery's; it runs `concurrency` tasks at a time."""

    name = "celery"
    ready_timeout = 60.0

    def __init__(
        self,
        pool: str,
        broker: Redis,
        database: Database,
        settings: Mapping[str, object],
        *,
        concurrency: int = 20,
    ) -> None:
        super().__init__()
        self.pool = pool
        broker_url = f"redis://127.0.0.1:{broker.port}/1"
        self.queue = Celery(broker=broker_url)
        self.concurrency = concurrency
        env = {"EVENTSTREAM_TEST_BROKER": broker_url}
        self.env = django_environment(database.settings, settings, env)

    def launch(self) -> ServerProcess:
        argv = [
            sys.executable, "-m", "celery", "--app", "tests.celery_worker", "worker",
            "--pool", self.pool, "--concurrency", str(self.concurrency), "--loglevel", "INFO",
            *QUIET,
        ]  # fmt: skip
        return ServerProcess(argv, log=self.log, env=self.env, cwd=ROOT)

    def is_ready(self) -> bool:
        return " ready." in self.log_text()

    def ask(self, task: str, *arguments: object) -> None:
        """Puts a task of `tests.celery_worker` into the queue."""
        self.queue.send_task(f"tests.celery_worker.{task}", arguments, ignore_result=True)

    def ask_to_end(self) -> None:
        """SIGTERM; does not wait: it finishes what it has begun."""
        os.kill(self.pid, signal.SIGTERM)

    def close(self) -> None:
        self.queue.close()
        super().close()
