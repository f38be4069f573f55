from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models
from django_tenants.postgresql_backend.base import _check_schema_name


class Migration(migrations.Migration):
    initial = True

    operations = [
        migrations.CreateModel(
            "Tenant",
            [
                ("id", models.BigAutoField(primary_key=True)),
                (
                    "schema_name",
                    models.CharField(
                        max_length=63, unique=True, db_index=True, validators=[_check_schema_name]
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            "Domain",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("domain", models.CharField(max_length=253, unique=True, db_index=True)),
                ("is_primary", models.BooleanField(default=True, db_index=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        "tenants.tenant",
                        django.db.models.deletion.CASCADE,
                        related_name="domains",
                        db_index=True,
                    ),
                ),
            ],
        ),
    ]
