"""The management commands, on each database."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_eventstream import get_current_event_id, send_event
from django_eventstream.cursors import Cursor, resolve_start
from django_eventstream.events import CONTROL_CHANNEL
from django_eventstream.models import Event, EventCounter
from django_eventstream.retention import BATCH_SIZE
from django_eventstream.storage.base import LogPosition, Storage
from django_eventstream.storage.orm import DjangoModelStorage


class StorageElsewhere(Storage):
    """A log that is not in the project's database."""

    def append(self, events):
        return list(events)

    def read(self, channel, after, limit):
        return []

    def get_position(self, channels):
        return LogPosition({})

    def trim(self, channel, before, keep, limit):
        return 0


ELSEWHERE = f"{__name__}.{StorageElsewhere.__name__}"


def output(*arguments: str, **options) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, no_color=True, **options)
    return out.getvalue()


def history(channel: str, expired: int, kept: int) -> None:
    """Stores events of which the first ones are two days old."""
    now = timezone.now()
    Event.objects.bulk_create(
        [
            Event(channel=channel, type="message", data=json.dumps("x"), eid=number)
            for number in range(1, expired + kept + 1)
        ],
        batch_size=1_000,
    )
    old = Event.objects.filter(channel=channel, eid__lte=expired)
    old.update(created=now - timedelta(days=2))
    EventCounter.objects.create(name=channel, value=expired + kept)


def ids(channel: str) -> list[int]:
    return sorted(Event.objects.filter(channel=channel).values_list("eid", flat=True))


def test_trim_removes_everything_expired_in_batches_and_counts(default_database):
    history("long", expired=2 * BATCH_SIZE + 7, kept=2)
    history("short", expired=3, kept=1)
    history("fresh", expired=0, kept=2)
    printed = output("eventstream_trim", verbosity=2)
    assert printed.splitlines() == [
        "long: a batch of 1000",
        "long: a batch of 1000",
        "long: a batch of 7",
        "long: 2007 removed",
        "short: a batch of 3",
        "short: 3 removed",
        "2010 expired events removed.",
    ]
    assert ids("long") == [2008, 2009]
    assert ids("short") == [4]
    assert ids("fresh") == [1, 2]


def test_trim_takes_the_channels_that_it_is_given(default_database):
    history("one", expired=2, kept=1)
    history("two", expired=2, kept=1)
    history("three", expired=2, kept=1)
    printed = output("eventstream_trim", channel=["one", "two", "one"])
    assert printed.splitlines() == ["one: 2 removed", "two: 2 removed", "4 expired events removed."]
    assert ids("three") == [1, 2, 3]


def test_trim_keeps_by_count_and_never_uses_an_id_again(default_database, settings):
    settings.EVENTSTREAM_RETENTION_SECONDS = None
    settings.EVENTSTREAM_RETENTION_COUNT = 2
    history("news", expired=0, kept=5)
    output("eventstream_trim")
    assert ids("news") == [4, 5]
    settings.EVENTSTREAM_RETENTION_COUNT = 1
    settings.EVENTSTREAM_RETENTION_SECONDS = 1
    Event.objects.update(created=timezone.now() - timedelta(days=1))
    output("eventstream_trim")
    assert ids("news") == []
    assert send_event("news", "message", "next").id == 6


def test_trim_clears_what_processes_told_each_other(default_database):
    history(CONTROL_CHANNEL, expired=4, kept=1)
    assert "4 expired events removed." in output("eventstream_trim", channel=[CONTROL_CHANNEL])


def test_trim_says_so_when_there_is_nothing_to_do(default_database):
    assert output("eventstream_trim") == "0 expired events removed.\n"


@pytest.mark.parametrize(
    ("path", "message"),
    [(None, "no events are stored"), (ELSEWHERE, "name them with --channel")],
)
def test_trim_explains_where_it_cannot_work(settings, path, message):
    settings.EVENTSTREAM_STORAGE_CLASS = path
    with pytest.raises(CommandError, match=message):
        output("eventstream_trim")


def test_trim_works_on_a_named_channel_of_any_storage(settings):
    settings.EVENTSTREAM_STORAGE_CLASS = ELSEWHERE
    assert output("eventstream_trim", channel=["news"]) == "0 expired events removed.\n"


def test_trim_refuses_an_impossible_channel():
    with pytest.raises(CommandError, match="must not be empty"):
        output("eventstream_trim", channel=[""])


@pytest.mark.parametrize(
    "command",
    [("eventstream_trim",), ("eventstream_trim", "--channel=a"), ("eventstream_epoch", "--yes")],
)
def test_a_missing_table_is_an_error_that_can_be_read(sqlite_only, settings, command):
    with sqlite_only.as_default():
        call_command("migrate", "django_eventstream", "zero", verbosity=0)
        try:
            with pytest.raises(CommandError, match="event"):
                output(*command)
        finally:
            call_command("migrate", verbosity=0)


def test_a_new_epoch_resets_every_cursor_of_before(default_database):
    send_event("news", "message", "before the backup")
    before = Cursor.parse(get_current_event_id(["news"]))
    printed = output("eventstream_epoch", yes=True)
    position = DjangoModelStorage().get_position(["news"])
    assert printed == f"Epoch {position.epoch} has begun.\n"
    start = resolve_start(["news"], before, position.ids, position.epoch)
    assert start.resets == {"news": "epoch"}
    after = Cursor.parse(get_current_event_id(["news"]))
    assert resolve_start(["news"], after, position.ids, position.epoch).resets == {}


def test_an_epoch_is_explained_and_asked_for(default_database, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or "n")
    with pytest.raises(CommandError, match=r"Nothing was changed\."):
        output("eventstream_epoch")
    assert asked == ["Start a new epoch? [y/N] "]
    assert DjangoModelStorage().get_position([]).epoch == 0
    monkeypatch.setattr("builtins.input", lambda prompt: "yes")
    assert "restored from a backup" in output("eventstream_epoch")
    assert DjangoModelStorage().get_position([]).epoch > 0


def test_an_epoch_that_nobody_can_confirm_is_not_begun(default_database, monkeypatch):
    def nobody(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    with pytest.raises(CommandError, match="use --yes"):
        output("eventstream_epoch")
    assert DjangoModelStorage().get_position([]).epoch == 0


def test_a_storage_without_epochs_says_so(settings):
    settings.EVENTSTREAM_STORAGE_CLASS = ELSEWHERE
    with pytest.raises(CommandError, match="has no epochs to start"):
        output("eventstream_epoch", yes=True)
