"""`manage.py eventstream_trim`: remove every expired event now."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_eventstream.backends import get_storage
from django_eventstream.events import CONTROL_CHANNEL, validate_channel
from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.retention import trim
from django_eventstream.storage.base import Storage
from django_eventstream.transactions import owned_thread


class Command(BaseCommand):
    help = (
        "Removes every event that is older, or further back, than its channel keeps. "
        "Processes that send or hold streams do this as well, a little at a time; the command is "
        "for after EVENTSTREAM_RETENTION_… was made shorter, and for projects without any."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--channel",
            action="append",
            metavar="NAME",
            help="Only this channel; may be given several times. Without it: all.",
        )

    @owned_thread()
    def handle(self, *args: Any, channel: list[str] | None, **options: Any) -> None:
        storage = get_storage()
        if storage is None:
            raise CommandError(
                "EVENTSTREAM_STORAGE_CLASS is None: no events are stored. Leave it out, and they "
                "are in the project's database."
            )
        names = _all_channels(storage) if channel is None else _checked(channel)
        try:
            total = sum(self._trim(storage, name, options["verbosity"]) for name in names)
        except StorageUnavailableError as error:
            raise CommandError(f"{error}. What was removed so far stays removed.") from error
        self.stdout.write(self.style.SUCCESS(f"{total} expired events removed."))

    def _trim(self, storage: Storage, channel: str, verbosity: int) -> int:
        total = 0
        for removed in trim(storage, channel):
            total += removed
            if verbosity > 1:
                self.stdout.write(f"{channel}: a batch of {removed}")
        if total and verbosity:
            self.stdout.write(f"{channel}: {total} removed")
        return total


def _all_channels(storage: Storage) -> list[str]:
    try:
        return storage.get_channels()
    except NotImplementedError as error:
        text = "This storage cannot list its channels: name them with --channel."
        raise CommandError(text) from error
    except StorageUnavailableError as error:
        raise CommandError(f"The event log cannot be read: {error}") from error


def _checked(channels: Iterable[str]) -> list[str]:
    try:
        return [
            name if name == CONTROL_CHANNEL else validate_channel(name)
            for name in dict.fromkeys(channels)
        ]
    except ValueError as error:
        raise CommandError(str(error)) from error
