"""The Django app."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DjangoEventstreamConfig(AppConfig):
    """Put `"django_eventstream"` into `INSTALLED_APPS`."""

    name = "django_eventstream"
    label = "django_eventstream"
    verbose_name = _("Event stream")
    default_auto_field = "django.db.models.AutoField"

    def ready(self) -> None:
        """Register the system checks."""
        import_module("django_eventstream.checks.configuration")
        import_module("django_eventstream.checks.database")
        import_module("django_eventstream.checks.grip")
        import_module("django_eventstream.checks.legacy")
        import_module("django_eventstream.checks.proxies")
        import_module("django_eventstream.checks.redis")
        import_module("django_eventstream.checks.tenants")
