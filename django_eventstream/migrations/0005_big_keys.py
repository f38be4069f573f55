"""Keys of 64 bits: of 32, a hundred events a second use up all in 248 days, and then none is sent.

On PostgreSQL and MySQL the tables are written anew, behind a lock; the page on upgrading says
how long, and how a large table is changed in steps before. Then there is nothing left to do here.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


class AlterKey(migrations.AlterField):
    """SQLite's keys have 64 bits already: Django would copy the table for nothing."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, *states: Any
    ) -> None:
        if schema_editor.connection.vendor != "sqlite":
            super().database_forwards(app_label, schema_editor, *states)


class Migration(migrations.Migration):
    dependencies = [("django_eventstream", "0004_lease")]

    operations = [
        AlterKey("event", "id", models.BigAutoField(primary_key=True, serialize=False)),
        AlterKey("eventcounter", "id", models.BigAutoField(primary_key=True, serialize=False)),
    ]
