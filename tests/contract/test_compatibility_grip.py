"""What proxies, and tools that publish to them, saw of django-eventstream 5.3.4, row by row.

The names of tests begin with the section of the checklist, 1.8, or 1.4 for settings.
"""

from __future__ import annotations

import time

import jwt
import pytest
from django.contrib.auth import get_user_model
from django.test import Client, RequestFactory

from django_eventstream import EventRequest, get_events, send_event
from django_eventstream.events import Event
from django_eventstream.grip import event_item, personal_channel, recheck_item
from django_eventstream.proxies import get_proxies, is_proxy_required
from tests.outlets import close_outlets

KEY = "k" * 32
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def proxied(settings):
    # Nobody listens there: what is published is lost, which is logged.
    settings.GRIP_URL = f"http://127.0.0.1:1?iss=me&key={KEY}"
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = "tests.managers.LooseChannelManager"
    yield
    close_outlets()


def signed(**headers: str) -> dict[str, str]:
    claims = {"iss": "pushpin", "exp": time.time() + 60}
    return {"Grip-Sig": jwt.encode(claims, KEY), **headers}


def held(query: str, *, user=None, **headers: str):
    client = Client()
    if user is not None:
        client.force_login(user)
    return client.get(f"/events/?{query}", headers=signed(**headers))


@pytest.fixture
def ann():
    return get_user_model().objects.create(username="ann")


def test_1_8_channels_and_filters_have_their_names_in_this_order(ann):
    response = held("channel=user:5&channel=loose-a/b", user=ann)
    events, loose, user = response["Grip-Channel"].split(", ")
    assert events == "events-user%3A5; prev-id=0; filter=build-id; filter=skip-users"
    assert loose == "events-loose-a/b; filter=skip-users"
    assert user.startswith(f"user-{ann.pk}; ")
    assert user.endswith("; filter=require-sub")
    assert "user-anonymous; " in held("channel=a")["Grip-Channel"]


def test_1_8_meta_has_the_id_format_in_the_order_of_the_cursor_and_the_user(ann):
    meta = held("channel=b&channel=user:5", user=ann)["Grip-Set-Meta"]
    assert f'user="{ann.pk}"' in meta
    assert 'id_format="b:%(events-b)s,user%%3A5:%(events-user%3A5)s"' in meta


def test_1_8_an_item_has_id_prev_id_escaped_content_and_who_skips_it():
    item = event_item(Event("user:5", "message", '"100%"', 7, frozenset({"8", "9"})))
    assert item == {
        "channel": "events-user%3A5",
        "id": "7",
        "prev-id": "6",
        "formats": {
            "http-stream": {
                "content": 'data: "100%%"\nid: %I\n\n',
                "content-filters": ["build-id"],
            }
        },
        "meta": {"skip_users": "8,9"},
    }


def test_1_8_a_permission_that_goes_is_told_on_the_channel_of_the_user():
    """In 5.3.4 an item with a fixed id, which proxies dropped the second time."""
    assert recheck_item("5")["channel"] == personal_channel("5") == "user-5"
    assert "id" not in recheck_item("5")


def test_1_4_the_settings_of_django_grip_are_read(settings):
    settings.GRIP_URL = None
    settings.GRIP_PROXIES = [{"control_uri": "http://one/", "control_iss": "me", "key": KEY}]
    settings.GRIP_VERIFY_KEY = "v" * 32
    settings.GRIP_PROXY_REQUIRED = True
    settings.GRIP_PREFIX = "site-"
    [proxy] = get_proxies()
    assert (proxy.control_uri, proxy.issuer, proxy.key) == ("http://one", "me", KEY)
    assert proxy.verify_key == "v" * 32
    assert is_proxy_required()
    assert settings.GRIP_PROXIES == [
        {"control_uri": "http://one/", "control_iss": "me", "key": KEY}
    ]


def test_1_4_a_prefix_stands_before_every_channel_at_the_proxy(settings):
    settings.GRIP_PREFIX = "site-"
    channels = held("channel=user:5")["Grip-Channel"].split(", ")
    assert [name.partition(";")[0] for name in channels] == [
        "site-events-user%3A5",
        "site-user-anonymous",
    ]


# Which Python 3.12 and newer warn of, in gripcontrol.
@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
def test_1_4_the_middleware_of_django_grip_may_stay(settings):
    settings.MIDDLEWARE = ["django_grip.GripMiddleware", *settings.MIDDLEWARE]
    with_it = held("channel=a")
    assert with_it["Grip-Hold"] == "stream"
    assert with_it.wsgi_request.grip.proxied
    assert with_it.wsgi_request.grip.signed


# 1.3 Views that make their own answer, behind a proxy


def request_of(query: str, **headers: str):
    return RequestFactory().get(f"/events/?{query}", headers=signed(**headers))


def test_1_3_to_grip_response_is_a_hold_like_that_of_the_view():
    send_event("user:5", "message", {"n": 1})
    request = request_of("channel=user:5&channel=loose-a&lastEventId=user%253A5:0")
    by_hand = get_events(EventRequest(request)).to_grip_response(request)
    ours = held("channel=user:5&channel=loose-a&lastEventId=user%253A5:0")
    assert by_hand.content == ours.content
    headers = ("Grip-Hold", "Grip-Channel", "Grip-Set-Meta", "Grip-Keep-Alive")
    for name in (*headers, "X-Accel-Buffering", "Content-Encoding"):
        assert by_hand[name] == ours[name]
    assert by_hand["Grip-Link"].startswith("</events/_next/>; rel=next")


def test_1_3_to_grip_response_starts_a_position_over_that_cannot_be_resumed():
    send_event("a", "message", 1)
    request = request_of("channel=a&channel=b&lastEventId=a:9")
    response = get_events(EventRequest(request)).to_grip_response(request)
    assert response.content.count(b"event: stream-reset") == 1
    assert b'"channels": ["a"]' in response.content


def test_1_3_an_event_request_of_a_proxy_knows_the_connection(ann):
    held_by = held("channel=a&channel=loose-b", user=ann)
    personal = held_by["Grip-Channel"].split(", ")[-1]
    state = personal.partition("prev-id=")[2].partition(";")[0]
    last = f"events-a; last-id=3, user-{ann.pk}; last-id={state}"
    request = EventRequest(request_of("channel=ignored", **{"Grip-Last": last}))
    assert request.channels == {"a", "loose-b"}
    assert request.channel_last_ids == {"a": "3"}
    assert (request.is_next, request.is_recover, request.user) == (True, True, ann)
    with pytest.raises(EventRequest.GripError):
        EventRequest(request_of("channel=a", **{"Grip-Last": "nonsense"}))


def test_1_3_who_only_claims_to_be_a_proxy_is_a_client():
    http_request = RequestFactory().get(
        "/events/?channel=a", headers={"Grip-Last": "events-b; last-id=1", "Grip-Sig": "forged"}
    )
    request = EventRequest(http_request)
    assert (request.channels, request.is_recover) == ({"a"}, False)
    response = get_events(request).to_grip_response(http_request)
    assert not [name for name in response.headers if name.startswith("Grip-")]
