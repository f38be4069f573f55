"""Before a stream starts, permission may be asked again: of the user as they are now."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import RequestFactory

from django_eventstream.channelmanager import DefaultChannelManager
from django_eventstream.exceptions import EventPermissionError, EventStreamError
from django_eventstream.web.requests import parse_hold


class ByPermission(DefaultChannelManager):
    """Whoever may view users reads."""

    def can_read_channel(self, user, channel: str) -> bool:
        return user is not None and user.has_perm("auth.view_user")


@pytest.fixture
def request_of():
    def make(user: object):
        request = RequestFactory().get("/events/?channel=a")
        request.user = user
        return request

    return make


@pytest.fixture
def reader(db, settings) -> User:
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = f"{__name__}.ByPermission"
    user = User.objects.create_user("reader")
    user.user_permissions.add(Permission.objects.get(codename="view_user"))
    return user


def test_a_permission_that_django_remembers_on_the_user_is_not_believed(reader, request_of):
    hold = parse_hold(request_of(User.objects.get(pk=reader.pk)), {})
    hold.authorize()
    reader.user_permissions.clear()
    with pytest.raises(EventPermissionError):
        hold.authorize()


def test_a_user_who_was_deleted_reads_nothing(reader, request_of):
    hold = parse_hold(request_of(User.objects.get(pk=reader.pk)), {})
    reader.delete()
    with pytest.raises(EventPermissionError):
        hold.authorize()


def test_a_user_without_primary_key_is_an_error_that_a_client_may_see(request_of):
    class Visitor:
        is_authenticated = True

    with pytest.raises(EventStreamError, match="Internal error"):
        parse_hold(request_of(Visitor()), {})


def test_a_hold_remembers_its_own_channels_of_a_cursor_of_thousands(request_of):
    request = request_of(None)
    request.META["HTTP_LAST_EVENT_ID"] = "a:1," + ",".join(f"x{n}:1" for n in range(1_500))
    cursor = parse_hold(request, {}).cursor
    assert str(cursor) == "a:1"
