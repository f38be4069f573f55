"""`manage.py eventstream_relay`: announce events for processes that did not live to do it."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, close_old_connections, router
from django.utils import timezone

from django_eventstream.backends import get_publishers, get_storage
from django_eventstream.events import CONTROL_CHANNEL
from django_eventstream.exceptions import StorageUnavailableError
from django_eventstream.models import EventCounter
from django_eventstream.outbox import relay_left_behind
from django_eventstream.publishers.grip import GripPublisher
from django_eventstream.storage.orm import DjangoModelStorage
from django_eventstream.transactions import owned_thread

LOOK_BACK = timedelta(minutes=1)
"""How far back the first look goes: earlier gaps were found by earlier probes, or by recovery."""

OVERLAP = timedelta(seconds=10)
"""Clocks of machines differ, and transactions become visible late."""


class Command(BaseCommand):
    help = (
        "Announces events that were committed by a process which ended before it could, and tells "
        "GRIP proxies of the last event of channels that fell silent, so that streams find what a "
        "lost announcement left out. Every process that streams or sends does the first as well; "
        "run this beside short-lived senders behind a proxy. Runs until it is interrupted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="Look once, then end.")
        parser.add_argument(
            "--interval", type=float, default=1.0, help="Seconds between two looks (1)."
        )

    @owned_thread()
    def handle(self, *args: Any, once: bool, interval: float, **options: Any) -> None:
        if get_storage() is None:
            raise CommandError("EVENTSTREAM_STORAGE_CLASS is None: no events are stored.")
        since = timezone.now() - LOOK_BACK
        try:
            while True:
                since = self._look(since, is_last=once)
                if once:
                    return
                close_old_connections()
                time.sleep(interval)
        except KeyboardInterrupt:
            return

    def _look(self, since: datetime, *, is_last: bool) -> datetime:
        now = timezone.now()
        try:
            if count := relay_left_behind():
                self.stdout.write(f"{count} events that were left behind are on their way.")
            changed = _changed_since(since)
        except (StorageUnavailableError, DatabaseError) as error:
            if is_last:
                raise CommandError(f"The event log cannot be read: {error}") from error
            self.stderr.write(f"The event log cannot be read now: {error}")
            return since
        for publisher in get_publishers():
            if isinstance(publisher, GripPublisher) and changed:
                (publisher.probe if is_last else publisher.watch)(changed)
        return now - OVERLAP


def _changed_since(since: datetime) -> dict[str, int]:
    """Return the last ids of channels that were sent to; another storage cannot tell."""
    if not isinstance(get_storage(), DjangoModelStorage):
        return {}
    counters = EventCounter.objects.using(router.db_for_write(EventCounter))
    recent = counters.filter(updated__gte=since, value__gt=0).exclude(
        name__in=("", CONTROL_CHANNEL)
    )
    return dict(recent.values_list("name", "value"))
