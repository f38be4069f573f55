"""`manage.py eventstream_relay`: announce events for processes that did not live to do it."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections

from django_eventstream.backends import get_storage
from django_eventstream.exceptions import PublishError, StorageUnavailableError
from django_eventstream.outbox import relay_left_behind
from django_eventstream.transactions import owned_thread
from django_eventstream.watch import ABSTAIN_SECONDS, Watch


class Command(BaseCommand):
    help = (
        "Announces events that were committed by a process which ended before it could, and lets "
        "streams behind GRIP proxies find what a lost announcement left out. Every process of the "
        "site that answers or sends takes part in this; run the command where none lives on. With "
        "several, one works, and another goes on when it ends. Runs until it is interrupted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="Look once, then end.")
        parser.add_argument(
            "--interval", type=float, default=1.0, help="Seconds between two looks (1)."
        )

    @owned_thread()
    def handle(self, *args: Any, once: bool, interval: float, **options: Any) -> None:
        storage = get_storage()
        if storage is None:
            raise CommandError(
                "EVENTSTREAM_STORAGE_CLASS is None: no events are stored. Leave it out, and they "
                "are in the project's database."
            )
        watch = Watch(storage, interval) if storage.supports_watch else None
        if once:
            self._look_once(watch)
        else:
            self._look_until_interrupted(watch, interval)

    def _look_once(self, watch: Watch | None) -> None:
        try:
            count = 0 if watch is None else _look(watch)
            while relayed := relay_left_behind():
                count += relayed
            self._tell(count)
        except (StorageUnavailableError, PublishError) as error:
            raise CommandError(f"It cannot be done now: {error}") from error

    def _look_until_interrupted(self, watch: Watch | None, interval: float) -> None:
        try:
            while True:
                pause = self._turn(watch, interval)
                close_old_connections()
                time.sleep(pause)
        except KeyboardInterrupt:
            if watch is not None:
                with suppress(StorageUnavailableError):  # else the next one waits until it is over
                    watch.release()

    def _turn(self, watch: Watch | None, interval: float) -> float:
        relayed = 0 if watch is None else watch.relayed
        pause = interval
        try:
            if watch is None:
                self._tell(relay_left_behind())
            else:
                pause = watch.turn()
        except StorageUnavailableError as error:
            self.stderr.write(f"The event log cannot be read now: {error}")
        except PublishError as error:
            self.stderr.write(f"Another process is to look, if there is one: {error}")
            pause = ABSTAIN_SECONDS
        if watch is not None:
            self._tell(watch.relayed - relayed)
        return pause

    def _tell(self, count: int) -> None:
        if count:
            self.stdout.write(f"{count} events that were left behind are on their way.")


def _look(watch: Watch) -> int:
    """Look at all that moved, whoever has the lease."""
    watch.take_lease()
    while watch.look(silence=0):
        pass
    watch.release()
    return watch.relayed
