"""A lease, so that one process watches for all which channels moved."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_eventstream", "0003_exact_names")]

    operations = [
        migrations.CreateModel(
            name="Lease",
            fields=[
                ("name", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("holder", models.CharField(max_length=128)),
                ("until", models.DateTimeField()),
                ("looked_until", models.DateTimeField(null=True)),
                ("control_id", models.BigIntegerField(null=True)),
            ],
        ),
    ]
