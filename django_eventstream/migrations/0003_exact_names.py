"""On MySQL and MariaDB channel names become case-sensitive, as they are everywhere else.

Else whoever may read `room` would read `ROOM`. No channel has an empty name any more: that
counter is the log's own.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps


def compare_names_exactly(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    connection = schema_editor.connection
    event, counter = _models(apps)
    if connection.vendor == "mysql":
        is_mariadb = getattr(connection, "mysql_is_mariadb", False)
        collation = "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"
        _alter_names(apps, schema_editor, "utf8mb4", collation)
        _split_counters(apps, connection.alias)
    counter.objects.using(connection.alias).filter(name="").delete()
    event.objects.using(connection.alias).filter(channel="").delete()


def compare_names_as_before(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    connection = schema_editor.connection
    event, counter = _models(apps)
    if connection.vendor == "mysql":
        _compare_with_old_collation(apps, schema_editor)
    # What processes told each other: the predecessor would let any client read it.
    event.objects.using(connection.alias).filter(channel="__eventstream__").delete()
    counter.objects.using(connection.alias).filter(name="__eventstream__").delete()


def _compare_with_old_collation(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    connection = schema_editor.connection
    _, counter = _models(apps)
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@character_set_database, @@collation_database")
        charset, collation = cursor.fetchone()
        cursor.execute(
            f"SELECT COUNT(*) - COUNT(DISTINCT CONVERT(name USING {charset}) COLLATE {collation})"
            f" FROM {counter._meta.db_table}"
        )
        [[alike]] = cursor.fetchall()
    if alike:
        raise RuntimeError(
            f"{alike} channels have names that {collation} takes for those of other channels: "
            "delete their events and counters before you go back"
        )
    _alter_names(apps, schema_editor, charset, collation)


def _alter_names(
    apps: StateApps, schema_editor: BaseDatabaseSchemaEditor, charset: str, collation: str
) -> None:
    event, counter = (model._meta.db_table for model in _models(apps))
    for table, column in ((event, "channel"), (event, "type"), (counter, "name")):
        schema_editor.execute(
            f"ALTER TABLE {table} MODIFY {column} varchar(255)"
            f" CHARACTER SET {charset} COLLATE {collation} NOT NULL"
        )


def _split_counters(apps: StateApps, alias: str) -> None:
    """Give channels that shared a counter, because their names compared equal, one of their own."""
    event, counter = _models(apps)
    known = set(counter.objects.using(alias).values_list("name", flat=True))
    last_ids = event.objects.using(alias).values_list("channel").annotate(models.Max("eid"))
    for channel, last_id in last_ids.order_by():
        if channel not in known:
            counter.objects.using(alias).create(name=channel, value=last_id or 0)


def _models(apps: StateApps) -> tuple[Any, Any]:
    return (
        apps.get_model("django_eventstream", "Event"),
        apps.get_model("django_eventstream", "EventCounter"),
    )


class Migration(migrations.Migration):
    dependencies = [("django_eventstream", "0002_outbox")]

    operations = [
        # Not atomic: MySQL commits before each ALTER TABLE.
        migrations.RunPython(compare_names_exactly, compare_names_as_before, atomic=False),
    ]
