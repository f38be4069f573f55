"""`manage.py eventstream_epoch`: tell every client that the log was restored from a backup."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_eventstream.backends import get_storage
from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.transactions import owned_thread

EXPLANATION = """\
This is for a database that was restored from a backup. Events sent after the backup was made are
lost with the old database, and their ids will be given again to other events. A client that has
seen the old ones would take the new ones for known, and miss them.

A new epoch prevents that: each client that comes back with an id from before is sent
`stream-reset`, and starts over at the current position. Streams that are open are reset as well.
"""


class Command(BaseCommand):
    help = "Starts a new epoch of the event log. Run it once after the database was restored."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--yes", action="store_true", help="Do not ask.")

    @owned_thread()
    def handle(self, *args: Any, yes: bool, **options: Any) -> None:
        storage = get_storage()
        if storage is None:
            raise CommandError(
                "EVENTSTREAM_STORAGE_CLASS is None: no events are stored. Leave it out, and they "
                "are in the project's database."
            )
        if not yes:
            self._confirm()
        try:
            epoch = storage.begin_epoch()
        except NotImplementedError as error:
            raise CommandError(
                f"{type(storage).__name__} in EVENTSTREAM_STORAGE_CLASS has no epochs to start: it "
                "has no begin_epoch()."
            ) from error
        except StorageUnavailableError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(self.style.SUCCESS(f"Epoch {epoch} has begun."))

    def _confirm(self) -> None:
        self.stdout.write(EXPLANATION)
        try:
            answer = input("Start a new epoch? [y/N] ")
        except EOFError as error:
            raise CommandError("Nobody is there to answer: use --yes.") from error
        if answer.strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was changed.")
