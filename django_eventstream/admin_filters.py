"""Filters of the admin that ask for a bounded number of rows, however many names there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_eventstream.models import Event, EventCounter

MOST_NAMES = 15
"""Names that a filter offers; any other can be typed."""

ROWS_LOOKED_AT = 500
"""Newest events among which the filter by type finds its names."""


class NameFilter(admin.SimpleListFilter):
    """A field to type an exact name into, and a few recent names to choose from."""

    template = "admin/django_eventstream/name_filter.html"
    field = ""

    def has_output(self) -> bool:
        """Show it even when no name is recent."""
        return True

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> Iterable[tuple[str, str]]:
        """Offer recent names."""
        return [(name, name) for name in self.recent_names(model_admin)]

    def recent_names(self, model_admin: admin.ModelAdmin[Any]) -> Iterable[str]:
        """Find a bounded number of names by an index."""
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the rows of exactly this name."""
        value = self.value()
        if value is None:
            return queryset
        # No name has one, and PostgreSQL refuses to be asked.
        return queryset.none() if "\x00" in value else queryset.filter(**{self.field: value})

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Give the template what it needs besides the links: the other filters, to keep them."""
        others = [
            (name, value)
            for name, values in changelist.filter_params.items()
            if name != self.parameter_name
            for value in values
        ]
        for choice in super().choices(changelist):
            yield {**choice, "value": self.value() or "", "others": others}


class ChannelFilter(NameFilter):
    """Events of one channel."""

    title = _("channel")
    parameter_name = "channel"
    field = "channel"

    def recent_names(self, model_admin: admin.ModelAdmin[Any]) -> Iterable[str]:
        """Offer the channels that were sent to last."""
        counters = EventCounter.objects.exclude(name="").order_by("-updated")
        return counters.values_list("name", flat=True)[:MOST_NAMES]


class TypeFilter(NameFilter):
    """Events of one type."""

    title = _("type")
    parameter_name = "type"
    field = "type"

    def recent_names(self, model_admin: admin.ModelAdmin[Any]) -> Iterable[str]:
        """Offer the types of the newest events."""
        newest = Event.objects.order_by("-id").values_list("type", flat=True)[:ROWS_LOOKED_AT]
        return sorted(set(newest))[:MOST_NAMES]


class AgeFilter(admin.SimpleListFilter):
    """Events of a recent period."""

    title = _("time")
    parameter_name = "within"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> Iterable[tuple[str, Any]]:
        """Offer periods in minutes."""
        return [
            ("1", _("Last minute")),
            ("10", _("Last 10 minutes")),
            ("60", _("Last hour")),
            ("1440", _("Last 24 hours")),
            ("10080", _("Last 7 days")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the rows of the period."""
        value = self.value()
        if value not in dict(self.lookup_choices):
            return queryset
        return queryset.filter(created__gte=timezone.now() - timedelta(minutes=int(value or 0)))


class StateFilter(admin.SimpleListFilter):
    """Events with or without a number."""

    title = _("state")
    parameter_name = "state"

    def lookups(
        self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]
    ) -> Iterable[tuple[str, Any]]:
        """An event is either."""
        return [("numbered", _("Numbered")), ("waiting", _("Waiting for its number"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the rows in that state."""
        states = {"numbered": False, "waiting": True}
        value = self.value()
        return queryset.filter(eid__isnull=states[value]) if value in states else queryset
