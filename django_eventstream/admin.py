"""The log in Django's admin: to look at, not to change.

Events are written by `send_event()` alone: a row added, changed or deleted by hand would break
the promise that ids have no gaps. Every page stays quick with millions of rows: nothing here
counts or sorts the whole table.
"""

from __future__ import annotations

import json
from datetime import datetime
from datetime import timezone as datetime_timezone
from typing import Any, ClassVar, cast

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_eventstream.admin_filters import AgeFilter, ChannelFilter, StateFilter, TypeFilter
from django_eventstream.cursors import MAX_ID, Cursor, format_cursor
from django_eventstream.models import Event, EventCounter

FILTERS = (ChannelFilter, TypeFilter, AgeFilter, StateFilter)

PAGE_SIZE = 50

MOST_ROWS = 5_000
"""A list counts and pages no further than this; a filter finds what is older."""

CHANNELS_SEARCHED = 200
"""Channels that one search term may stand for."""

HEAD_LENGTH = 120
"""Characters of the data in a list."""

MOST_SHOWN = 200_000
"""Characters of the data on an event's own page."""


class BoundedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts up to a limit: COUNT(*) reads a whole table on most databases."""

    @cached_property
    def count(self) -> int:
        """How many rows there are, at most `MOST_ROWS`."""
        rows = cast("QuerySet[Any]", self.object_list)
        return rows.order_by().values("pk")[:MOST_ROWS].count()


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Lists and pages without any way to write."""

    paginator = BoundedPaginator
    list_per_page = PAGE_SIZE
    list_max_show_all = PAGE_SIZE
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    # Sorted by another column than an indexed one, a million rows would be sorted for a page.
    sortable_by = ()

    class Media:
        css: ClassVar = {"all": ["django_eventstream/css/admin.css"]}

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Refuse what PostgreSQL cannot be asked; see `ModelAdmin.lookup_allowed()`."""
        is_ours = lookup in {each.parameter_name for each in FILTERS}
        return is_ours or ("\x00" not in value and super().lookup_allowed(lookup, value, request))

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody may."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody may."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody may."""
        return False


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    """The history of events, newest first."""

    list_display = ("channel", "number", "type", "short_data", "sent_at")
    list_filter = FILTERS
    ordering = ("-id",)
    # Admin shows no search box without it; `get_search_results()` does the searching.
    search_fields = ("channel",)
    search_help_text = _(
        "A part of a channel's name, a whole type, or channel:id. "
        "The list ends after 5,000 events: filter or search to see older ones."
    )
    fields = ("channel", "number", "cursor", "type", "sent_at", "skipped_users", "payload")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        """Leave out the empty rows with the id 0 that the predecessor kept; they are no events."""
        events: QuerySet[Event] = super().get_queryset(request)
        return (
            events.exclude(eid=0)
            .defer("data")
            .annotate(data_head=Left("data", HEAD_LENGTH * 2 + 1))
        )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search where an index helps: never in the data, and in no column from end to end."""
        term = search_term.strip()
        if not term:
            return queryset, False
        channels = EventCounter.objects.filter(name__icontains=term).exclude(name="")
        names = [term, *channels.values_list("name", flat=True)[:CHANNELS_SEARCHED]]
        found = Q(channel__in=names) | Q(type=term)
        for channel, event_id in Cursor.parse(term).positions.items():
            # PostgreSQL refuses to be asked for a NUL, which quoting brings past Django's form.
            if event_id <= MAX_ID and "\x00" not in channel:
                found |= Q(channel=channel, eid=event_id)
        return queryset.filter(found), False

    @admin.display(description=_("ID"))
    def number(self, event: Event) -> str:
        """Show the id; in a transaction that has just been committed there may be none yet."""
        return str(_("waiting for its number") if event.eid is None else event.eid)

    @admin.display(description=_("Last-Event-ID"))
    def cursor(self, event: Event) -> str:
        """Show what a stream of this channel alone has as the event's id."""
        return "–" if event.eid is None else format_cursor([(event.channel, event.eid)])

    @admin.display(description=_("Data"))
    def short_data(self, event: Any) -> str:
        """Show the beginning of the data."""
        is_whole = len(event.data_head) <= HEAD_LENGTH * 2
        text = decode_data(event.data_head) if is_whole else decode_head(event.data_head)
        return text if is_whole and len(text) <= HEAD_LENGTH else f"{text[:HEAD_LENGTH]}…"

    @admin.display(description=_("Created"))
    def sent_at(self, event: Event) -> str:
        """Show the time exactly enough to tell events of one burst apart."""
        is_aware = timezone.is_aware(event.created)
        created = timezone.localtime(event.created) if is_aware else event.created
        return created.isoformat(" ", "milliseconds")[:23]

    @admin.display(description=_("Not for the users"))
    def skipped_users(self, event: Event) -> str:
        """Show the primary keys of the users who do not get the event."""
        return _users(event.skip_user_ids) if event.skip_user_ids else "–"

    @admin.display(description=_("Data"))
    def payload(self, event: Event) -> SafeString:
        """Show the data as it is sent; JSON is laid out to be read."""
        text = pretty(decode_data(event.data))
        rest = len(text) - MOST_SHOWN
        more = _("\n… and %(count)s more characters") % {"count": rest} if rest > 0 else ""
        return format_html('<pre class="eventstream-data">{}{}</pre>', text[:MOST_SHOWN], more)


@admin.register(EventCounter)
class EventCounterAdmin(ReadOnlyAdmin):
    """The channels, those that were sent to last first."""

    list_display = ("channel", "last_id", "updated", "events")
    ordering = ("-updated",)
    search_fields = ("name",)
    search_help_text = _("A part of a channel's name")
    fields = ("channel", "last_id", "updated", "events")
    readonly_fields = fields

    @admin.display(description=_("Channel"))
    def channel(self, counter: EventCounter) -> str:
        """Name the channel; one row is none."""
        return counter.name or str(_("(epoch of the log)"))

    @admin.display(description=_("Last ID"))
    def last_id(self, counter: EventCounter) -> str:
        """Show the last id; an epoch is the time at which it began."""
        if counter.name:
            return str(counter.value)
        began = datetime.fromtimestamp(counter.value, datetime_timezone.utc)
        return str(
            _("%(epoch)s, begun %(time)s UTC")
            % {"epoch": counter.value, "time": began.strftime("%Y-%m-%d %H:%M:%S")}
        )

    @admin.display(description=_("Events"))
    def events(self, counter: EventCounter) -> str:
        """Link to the channel's history."""
        if not counter.name:
            return "–"
        url = reverse(f"{self.admin_site.name}:django_eventstream_event_changelist")
        query = urlencode({ChannelFilter.parameter_name: counter.name})
        return format_html('<a href="{}?{}">{}</a>', url, query, _("History"))


def decode_data(column: str) -> str:
    """Return the text that is sent; a storage of the predecessor may have kept any JSON."""
    try:
        data = json.loads(column)
    except ValueError:
        return column
    return _printable(data) if isinstance(data, str) else column


def decode_head(head: str) -> str:
    """Return the text that a JSON string begins with, though its end may be cut off."""
    # The cut may be inside an escape, of which two make one character at most: `\\uXXXX\\uXXXX`.
    for cut in range(12):
        try:
            data = json.loads(f'{head[: len(head) - cut]}"')
        except ValueError:
            continue
        return _printable(data) if isinstance(data, str) else head
    return decode_data(head)


def pretty(text: str) -> str:
    """Lay out JSON; leave any other text alone, and what is too long to be shown whole."""
    if len(text) > MOST_SHOWN:
        return text
    try:
        return _printable(json.dumps(json.loads(text), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return text


def _users(column: str) -> str:
    try:
        users = json.loads(column)
    except (ValueError, RecursionError):
        users = None
    # Whatever else somebody wrote there by hand is shown as it is.
    return ", ".join(map(str, users)) if isinstance(users, list) else column


def _printable(text: str) -> str:
    # JSON can write half of a surrogate pair, a page in UTF-8 cannot.
    return text.encode(errors="replace").decode()
