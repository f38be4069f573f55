"""Which channels a request is for, by the channel manager of a project that has none of its own."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory

from django_eventstream.channelmanager import DefaultChannelManager
from django_eventstream.web.requests import named_channels


@pytest.mark.parametrize(
    ("view_kwargs", "names"),
    [
        ({"channels": ["news", "sport"]}, {"news", "sport"}),
        ({"channels": "news"}, {"news"}),
        ({"channel": "news"}, {"news"}),
        ({"format-channels": ["room-{room}", "all"], "room": "ü"}, {"room-ü", "all"}),
        ({"format-channels": "room-{room}", "room": 5}, {"room-5"}),
        ({}, {"asked"}),
    ],
)
def test_channels_are_named_by_the_url_in_a_list_or_alone(view_kwargs, names):
    """The letters of a single name were the channels, and their stream was silent for good."""
    request = RequestFactory().get("/events/?channel=asked")
    assert set(named_channels(request, view_kwargs, 10)) == names


@pytest.mark.parametrize("pattern", ["room-{rom}", "room-{}"])
def test_a_field_that_the_url_does_not_have_is_named(pattern):
    view_kwargs = {"format-channels": [pattern], "room": "a", "floor": 1}
    with pytest.raises(ImproperlyConfigured, match="the URL does not have; it has floor, room"):
        DefaultChannelManager().get_channels_for_request(RequestFactory().get("/"), view_kwargs)


class OneName(DefaultChannelManager):
    def get_channels_for_request(self, request, view_kwargs):
        return "news"


def test_a_channel_manager_may_return_one_name(settings):
    settings.EVENTSTREAM_CHANNELMANAGER_CLASS = f"{__name__}.OneName"
    assert named_channels(RequestFactory().get("/"), {}, 10) == ["news"]
