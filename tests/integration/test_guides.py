"""What the guides tell readers to type, typed."""

from __future__ import annotations

import ast
import json
import re
import unittest
from pathlib import Path

import pytest
from django.test import RequestFactory

from django_eventstream import send_event, send_events
from django_eventstream.exceptions import HistoryGoneError
from django_eventstream.models import Event
from django_eventstream.storage.orm import DjangoModelStorage
from tests.services.python import ROOT

DOCS = Path(ROOT) / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.django_db
def test_the_test_of_the_testing_guide_passes():
    names: dict = {}
    exec(blocks("howto/testing.md", "python")[0], names)
    case = names["NewsTest"]
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun == 1
    assert result.failures + result.errors == []


@pytest.mark.django_db(transaction=True)
def test_the_payload_is_where_the_testing_guide_says():
    send_event("a", "message", [1])
    event = Event.objects.get(channel="a")
    assert json.loads(json.loads(event.data)) == [1]


def test_the_channel_manager_of_the_security_guide_works():
    names: dict = {}
    exec(blocks("concepts/security.md", "python")[0], names)
    manager = names["ChannelManager"]()

    class User:
        pk = 7

    assert manager.can_read_channel(User(), "user-7")
    assert not manager.can_read_channel(User(), "user-8")
    assert not manager.can_read_channel(None, "user-7")
    assert manager.can_read_channel(None, "news")
    assert not manager.can_read_channel(None, "other")
    request = RequestFactory().get("/?channel=news")
    assert manager.get_channels_for_request(request, {}) == {"news"}


def test_the_forms_of_the_url_in_the_reference_can_be_routed():
    [patterns] = [block for block in blocks("reference/api.md", "python") if "path(" in block]
    names: dict = {}
    exec("from django.urls import include, path", names)
    for expression in ast.parse(patterns).body:
        assert eval(ast.unparse(expression), names).url_patterns


def test_position_zero_means_what_the_page_on_delivery_says(default_database):
    """It was said to begin at the start of what is kept; it never did once that was trimmed."""
    send_events([("news", "message", number) for number in range(1, 6)])
    storage = DjangoModelStorage()
    assert [event.id for event in storage.read("news", 0, 10)] == [1, 2, 3, 4, 5]
    storage.trim("news", None, 2, 100)
    with pytest.raises(HistoryGoneError) as caught:
        storage.read("news", 0, 10)
    assert caught.value.oldest == 4
