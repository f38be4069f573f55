"""The admin pages: what they show, that they cannot write, and what they cost."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from html import unescape
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_eventstream import send_event, send_events
from django_eventstream.admin import MOST_ROWS, decode_head
from django_eventstream.models import Event, EventCounter
from django_eventstream.storage.orm import DjangoModelStorage

EVENTS = "/admin/django_eventstream/event/"
COUNTERS = "/admin/django_eventstream/eventcounter/"


@pytest.fixture
def page(admin_client):
    def get(url: str, **query) -> str:
        response = admin_client.get(url, query)
        assert response.status_code == 200
        return response.content.decode()

    return get


@pytest.fixture
def sent(transactional_db):
    """Events as a project sends them, committed and numbered."""
    send_event("room/ä", "message", {"text": "hello <b>world</b>"})
    send_event("room/ä", "joined", "ann", skip_user_ids=[7, 12])
    send_event("news", "message", "plain text", json_encode=False)


def rows(html: str) -> list[str]:
    body = re.search(r'<table id="result_list">.*?<tbody>(.*?)</tbody>', html, re.DOTALL)
    if body is None:
        return []
    found = re.findall(r"<tr.*?</tr>", body.group(1), re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", row)).split()) for row in found]


def detail_url(event: Event) -> str:
    return reverse("admin:django_eventstream_event_change", args=[event.pk])


def stored(count: int, **values) -> None:
    given = {"channel": "bulk", "type": "message", "data": '"data"', **values}
    Event.objects.bulk_create(
        (Event(eid=number, **given) for number in range(1, count + 1)), batch_size=5_000
    )


def test_the_list_shows_newest_first_with_the_cursor_and_the_decoded_data(page, sent):
    news, joined, hello = rows(page(EVENTS))
    assert news.startswith("news 1 message plain text")
    assert joined.startswith('room/ä 2 joined "ann"')
    assert hello.startswith("room/ä 1 message {")


@pytest.mark.parametrize("column", ["[7", "7", '{"7": 1}', "[" * 10_000, "[[7]]"])
def test_the_page_of_an_event_that_nobody_can_read_shows_what_is_there(page, sent, column):
    Event.objects.filter(channel="news").update(skip_user_ids=column, data="{")
    assert "Not for the users" in page(detail_url(Event.objects.get(channel="news")))


def test_data_cannot_bring_markup_into_the_page(page, sent):
    assert "<b>world" not in page(EVENTS)
    event = Event.objects.get(channel="room/ä", eid=1)
    assert "&lt;b&gt;world&lt;/b&gt;" in page(detail_url(event))


def test_an_events_page_lays_out_json_and_names_the_users_who_do_not_get_it(page, sent):
    html = page(detail_url(Event.objects.get(channel="room/ä", eid=1)))
    assert "{\n  &quot;text&quot;: &quot;hello" in html
    html = page(detail_url(Event.objects.get(channel="room/ä", eid=2)))
    assert "12, 7" in html
    assert "room/%C3%A4:2" in html


def test_times_are_shown_to_the_millisecond(page, sent):
    assert re.search(r" \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$", rows(page(EVENTS))[0])


def test_text_that_is_not_json_is_shown_as_it_is(page, sent):
    assert ">plain text</pre>" in page(detail_url(Event.objects.get(channel="news")))


def test_data_of_the_predecessor_and_half_surrogates_are_shown(page):
    stored(1, data=json.dumps({"written": "by hand"}))
    stored(1, channel="half", data=json.dumps('"\\ud800"'))
    stored(1, channel="broken", data="no JSON at all")
    assert len(rows(page(EVENTS))) == 3
    for event in Event.objects.all():
        assert "eventstream-data" in page(detail_url(event))


def test_a_long_text_is_cut_in_the_list_wherever_the_cut_falls(page):
    for shift in range(13):
        text = "x" * shift + "\U0001f600ä\n" * 100
        head = json.dumps(text)[:241]
        assert text.startswith(decode_head(head).rstrip("?"))
    stored(1, data=json.dumps("\U0001f600" * 1_000))
    assert "\U0001f600…" in rows(page(EVENTS))[0]


def test_a_very_long_text_is_cut_on_its_own_page(page):
    stored(1, data=json.dumps("y" * 250_000))
    html = page(detail_url(Event.objects.get()))
    assert "and 50000 more characters" in html
    assert len(html) < 230_000


@pytest.mark.django_db(transaction=True)
def test_a_staged_event_is_shown_as_waiting_for_its_number(page):
    with transaction.atomic():
        send_event("news", "message", "not committed yet")
        [row] = rows(page(EVENTS))
        assert row.startswith("news waiting for its number message")
        assert "waiting for its number" in page(detail_url(Event.objects.get()))
        assert len(rows(page(EVENTS, state="waiting"))) == 1
        assert rows(page(EVENTS, state="numbered")) == []
    assert rows(page(EVENTS, state="waiting")) == []


def test_the_empty_rows_of_the_predecessor_are_not_shown(page):
    Event.objects.create(channel="old", type="", data="", eid=0)
    assert rows(page(EVENTS)) == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"channel": "news"}, ["news 1"]),
        ({"channel": "new"}, []),
        ({"channel": "news\x00"}, []),
        ({"type": "message"}, ["news 1", "room/ä 1"]),
        ({"type": "joined", "channel": "room/ä"}, ["room/ä 2"]),
        ({"within": "10"}, ["news 1", "room/ä 2", "room/ä 1"]),
        ({"within": "nonsense"}, ["news 1", "room/ä 2", "room/ä 1"]),
        ({"q": "ews"}, ["news 1"]),
        ({"q": "joined"}, ["room/ä 2"]),
        ({"q": "room/%C3%A4:2"}, ["room/ä 2"]),
        ({"q": "room/ä:1"}, ["room/ä 1"]),
        ({"q": "news:1,room/ä:2"}, ["news 1", "room/ä 2"]),
        ({"q": "news:99999999999999999999"}, []),
        ({"q": "nothing like it"}, []),
    ],
)
def test_filters_and_search_find(page, sent, query, found):
    assert [" ".join(row.split()[:2]) for row in rows(page(EVENTS, **query))] == found


def test_an_old_event_is_not_in_a_recent_period(page):
    stored(1)
    Event.objects.update(created=timezone.now() - timedelta(hours=3))
    assert rows(page(EVENTS, within="60")) == []
    assert len(rows(page(EVENTS, within="1440"))) == 1


def test_thousands_of_channels_make_no_long_filter(page):
    EventCounter.objects.bulk_create(EventCounter(name=f"channel-{n}") for n in range(3_000))
    html = page(EVENTS)
    assert html.count("?channel=") == 15
    assert 'type="search" name="channel"' in html


def test_typing_a_name_keeps_the_other_filters_and_the_search(page, sent):
    html = page(EVENTS, type="message", q="news", channel="news")
    form = re.search(r'<form method="get" class="eventstream-name">.*?</form>', html, re.DOTALL)
    assert '<input type="hidden" name="type" value="message">' in form.group()
    assert '<input type="hidden" name="q" value="news">' in form.group()
    assert form.group().count('name="channel"') == 1


@pytest.mark.parametrize("model", [Event, EventCounter])
def test_nobody_can_add_change_or_delete(admin_client, sent, model):
    name = f"admin:django_eventstream_{model._meta.model_name}"
    row = model.objects.first()
    assert admin_client.get(reverse(f"{name}_add")).status_code == 403
    assert admin_client.post(reverse(f"{name}_add"), {}).status_code == 403
    assert admin_client.post(reverse(f"{name}_change", args=[row.pk]), {}).status_code == 403
    assert admin_client.post(reverse(f"{name}_delete", args=[row.pk]), {}).status_code == 403
    before = model.objects.count()
    action = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    admin_client.post(reverse(f"{name}_changelist"), action)
    assert model.objects.count() == before


def test_the_permission_to_view_is_enough_and_needed(client, sent):
    clerk = User.objects.create_user("clerk", password="x", is_staff=True)
    client.force_login(clerk)
    assert client.get(EVENTS).status_code == 403
    clerk.user_permissions.add(Permission.objects.get(codename="view_event"))
    assert client.get(EVENTS).status_code == 200
    assert client.get(detail_url(Event.objects.first())).status_code == 200


def test_channels_are_listed_with_their_last_id_and_a_link_to_their_history(page, sent):
    html = page(COUNTERS)
    assert [row.split()[:2] for row in rows(html)] == [["news", "1"], ["room/ä", "2"]]
    assert f'href="{EVENTS}?channel=room%2F%C3%A4"' in html
    assert [row.split()[0] for row in rows(page(COUNTERS, q="oom"))] == ["room/ä"]


def test_the_row_of_the_epoch_is_told_from_a_channel(page, sent):
    epoch = DjangoModelStorage().begin_epoch()
    row = rows(page(COUNTERS))[0]
    assert row.startswith(f"(epoch of the log) {epoch}, begun 20")


def test_a_list_costs_the_same_few_statements_with_ten_events_and_with_a_hundred_thousand(page):
    def statements(**query) -> list[str]:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            page(EVENTS, **query)
        return [q["sql"] for q in captured if "django_eventstream" in q["sql"]]

    stored(10)
    few = statements()
    Event.objects.all().delete()
    stored(100_000)
    many = statements()
    assert len(many) == len(few) == 4
    for query in ({"channel": "bulk"}, {"q": "bulk"}, {"q": "bulk:5"}, {"within": "60"}):
        assert len(statements(**query)) <= 5
    for sql in many:
        assert "LIMIT" in sql, sql
    assert f"{MOST_ROWS} events" in page(EVENTS)
    assert MOST_ROWS == 5_000, "the help text of the search says so"


def test_the_admin_passes_its_own_checks():
    call_command("check", "admin")
    assert admin.site.is_registered(Event)


def test_the_pages_work_on_each_database(default_database):
    admin_of_site = User.objects.create_superuser("root", "root@example.com", "x")
    client = Client()
    client.force_login(admin_of_site)
    send_events([("news", "message", "\U0001f600" * 200), ("weather", "message", [1])])
    event = Event.objects.get(channel="news")
    found = {
        EVENTS: 2,
        f"{EVENTS}?channel=news&type=message&within=10&state=numbered": 1,
        f"{EVENTS}?channel=NEWS": 0,
        f"{EVENTS}?q=eathe": 1,
        f"{EVENTS}?q=weather:1,news:1": 2,
        COUNTERS: 2,
        f"{COUNTERS}?q=ews": 1,
    }
    for url, count in found.items():
        response = client.get(url)
        assert response.status_code == 200
        assert len(rows(response.content.decode())) == count, url
    assert client.get(detail_url(event)).status_code == 200


NUL = "\x00"


def test_a_nul_character_gets_an_answer_from_postgresql(postgres_only):
    """It cannot be asked for one: a search for `%00:1` was an error 500."""
    answered = {}
    with postgres_only.as_default():
        client = Client()
        client.force_login(User.objects.create_superuser("nul"))
        for url, query in [
            (EVENTS, {"q": "%00:1"}),
            (EVENTS, {"q": "a%00b:1,a:1"}),
            (EVENTS, {"q": NUL}),
            (EVENTS, {"channel": NUL}),
            (EVENTS, {"type": NUL, "within": NUL, "state": NUL}),
            (EVENTS, {"p": NUL, "o": NUL}),
            (EVENTS, {"channel__exact": NUL}),
            (EVENTS, {"data__contains": f"a{NUL}"}),
            (COUNTERS, {"q": "%00:1"}),
            (COUNTERS, {"q": NUL}),
            (COUNTERS, {"name": NUL}),
            (f"{EVENTS}{quote(NUL)}/change/", {}),
            (f"{COUNTERS}1{quote(NUL)}/history/", {}),
        ]:
            answered[(url, *query.items())] = client.get(url, query, follow=True).status_code
        User.objects.filter(username="nul").delete()
    refused = [asked for asked, status in answered.items() if status == 400]
    assert refused == [
        (EVENTS, ("channel__exact", NUL)),
        (EVENTS, ("data__contains", f"a{NUL}")),
        (COUNTERS, ("name", NUL)),
    ]
    assert {*answered.values()} <= {200, 400, 404}
