"""The tables of the log: fields and constraints only, the writing is in `storage`."""

from __future__ import annotations

from typing import ClassVar

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import models

if not apps.is_installed("django_eventstream"):
    # Django's own words for it are of an app_label, which is not what is missing.
    raise ImproperlyConfigured(
        "django_eventstream is used, and INSTALLED_APPS does not have it. Add "
        "'django_eventstream' to INSTALLED_APPS, and run `python manage.py migrate`."
    )


class Event(models.Model):
    """One event. A row without `eid` is committed but not yet numbered: it waits in the outbox."""

    # Also an insert that is rolled back takes one: 32 bits are used up in months.
    id = models.BigAutoField(primary_key=True)
    channel = models.CharField(max_length=255, db_index=True)
    type = models.CharField(max_length=255, db_index=True)
    # A JSON string of the text that is sent: no character is beyond any database.
    data = models.TextField()
    eid = models.BigIntegerField(null=True, blank=True)
    # NULL rather than "" for none: processes of the predecessor do not know the column.
    skip_user_ids = models.TextField(null=True, blank=True)  # noqa: DJ001
    created = models.DateTimeField(db_index=True, auto_now_add=True)

    class Meta:
        unique_together: ClassVar = [("channel", "eid")]
        # Finds the outbox.
        indexes: ClassVar = [
            models.Index(fields=["eid", "channel"], name="eventstream_eid_channel")
        ]

    def __str__(self) -> str:
        return f"{self.channel}:{self.eid if self.eid is not None else '–'} {self.type}"


class EventCounter(models.Model):
    """The last id of a channel. The row with the empty name has the epoch of the log."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=255, unique=True)
    value = models.BigIntegerField(default=0)
    updated = models.DateTimeField(db_index=True, auto_now=True)

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"

    @classmethod
    def get_or_create(cls, name: str) -> EventCounter:
        """Return the counter of a channel."""
        return cls.objects.get_or_create(name=name)[0]


class Lease(models.Model):
    """Which process does something for all the others, how long still, and how far it has come."""

    name = models.CharField(primary_key=True, max_length=64)
    holder = models.CharField(max_length=128)
    until = models.DateTimeField()
    looked_until = models.DateTimeField(null=True)
    # Of the watch; of the sweep it is the key of the event that it looked at last.
    control_id = models.BigIntegerField(null=True)

    def __str__(self) -> str:
        return f"{self.name}: {self.holder}"
