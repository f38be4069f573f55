"""The outbox: events may be committed before they are numbered, and know who skips them.

On MySQL and MariaDB channel names become case-sensitive, as they are everywhere else: else
whoever may read `room` would read `ROOM`.
"""

from django.db import migrations, models


def number_waiting_events(apps, schema_editor):
    """Backwards: the old table has no place for an event without an id."""
    event = apps.get_model("django_eventstream", "Event")
    counter = apps.get_model("django_eventstream", "EventCounter")
    alias = schema_editor.connection.alias
    for row in event.objects.using(alias).filter(eid=None).order_by("id").iterator():
        count, _ = counter.objects.using(alias).get_or_create(name=row.channel)
        row.eid = count.value = count.value + 1
        row.save(update_fields=["eid"])
        count.save()


def compare_names_exactly(apps, schema_editor):
    connection = schema_editor.connection
    if connection.vendor != "mysql":
        return
    collation = "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"
    for table, column in _names(apps):
        schema_editor.execute(
            f"ALTER TABLE {table} MODIFY {column} varchar(255)"
            f" CHARACTER SET utf8mb4 COLLATE {collation} NOT NULL"
        )
    _split_counters(apps, connection.alias)


def compare_names_as_before(apps, schema_editor):
    if schema_editor.connection.vendor != "mysql":
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT @@character_set_database, @@collation_database")
        charset, collation = cursor.fetchone()
    for table, column in _names(apps):
        schema_editor.execute(
            f"ALTER TABLE {table} MODIFY {column} varchar(255)"
            f" CHARACTER SET {charset} COLLATE {collation} NOT NULL"
        )


def _names(apps):
    event = apps.get_model("django_eventstream", "Event")
    counter = apps.get_model("django_eventstream", "EventCounter")
    return ((event._meta.db_table, "channel"), (counter._meta.db_table, "name"))


def _split_counters(apps, alias):
    """Give channels that shared a counter, because their names compared equal, one of their own."""
    event = apps.get_model("django_eventstream", "Event")
    counter = apps.get_model("django_eventstream", "EventCounter")
    known = set(counter.objects.using(alias).values_list("name", flat=True))
    last_ids = event.objects.using(alias).values_list("channel").annotate(models.Max("eid"))
    for channel, last_id in last_ids.order_by():
        if channel not in known:
            counter.objects.using(alias).create(name=channel, value=last_id or 0)


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
            field=models.BigIntegerField(blank=True, db_index=True, null=True),
        ),
        migrations.AddField(
            model_name="event",
            name="skip_user_ids",
            field=models.TextField(blank=True, null=True),
        ),
        migrations.RunPython(migrations.RunPython.noop, number_waiting_events),
        migrations.RunPython(compare_names_exactly, compare_names_as_before),
    ]
