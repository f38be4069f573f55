"""The Django app."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig
from django.core.signals import request_started
from django.utils.translation import gettext_lazy as _


class DjangoEventstreamConfig(AppConfig):
    """Put `"django_eventstream"` into `INSTALLED_APPS`."""

    name = "django_eventstream"
    label = "django_eventstream"
    verbose_name = _("Event stream")
    default_auto_field = "django.db.models.AutoField"

    def ready(self) -> None:
        """Register the system checks, and take part in requests: for the watch, for streams."""
        import_module("django_eventstream.checks.configuration")
        import_module("django_eventstream.checks.database")
        import_module("django_eventstream.checks.grip")
        import_module("django_eventstream.checks.legacy")
        import_module("django_eventstream.checks.proxies")
        import_module("django_eventstream.checks.redis")
        watchman = import_module("django_eventstream.watchman").watchman
        request_started.connect(watchman.stir, dispatch_uid="django_eventstream.watch")
        import_module("django_eventstream.checks.tenants")
        import_module("django_eventstream.web.lobby").lobby.open()
