"""The outbox: events may be committed before they are numbered, and know who skips them."""

from __future__ import annotations

from typing import Any

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps


def number_waiting_events(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Backwards: the old table has no place for an event without an id."""
    event: Any = apps.get_model("django_eventstream", "Event")
    counter: Any = apps.get_model("django_eventstream", "EventCounter")
    alias = schema_editor.connection.alias
    for row in list(event.objects.using(alias).filter(eid=None).order_by("id")):
        count, _ = counter.objects.using(alias).get_or_create(name=row.channel)
        row.eid = count.value = count.value + 1
        row.save(update_fields=["eid"])
        count.save()


class Migration(migrations.Migration):
    dependencies = [("django_eventstream", "0001_initial")]

    operations = [
        migrations.AlterField(
            model_name="event",
            name="id",
            field=models.AutoField(primary_key=True, serialize=False),
        ),
        migrations.AlterField(
            model_name="eventcounter",
            name="id",
            field=models.AutoField(primary_key=True, serialize=False),
        ),
        migrations.AlterField(
            model_name="event",
            name="eid",
            field=models.BigIntegerField(blank=True, null=True),
        ),
        migrations.RunPython(migrations.RunPython.noop, number_waiting_events),
        # Last, because MySQL cannot undo what came before: all but these two can be run again.
        migrations.AddIndex(
            model_name="event",
            index=models.Index(fields=["eid", "channel"], name="eventstream_eid_channel"),
        ),
        migrations.AddField(
            model_name="event",
            name="skip_user_ids",
            field=models.TextField(blank=True, null=True),
        ),
    ]
