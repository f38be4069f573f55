"""`async_publish=False` always ends, and says truthfully whether the events were published."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest
from django.db import connections, transaction

from django_eventstream import events, send_event
from django_eventstream.exceptions import PublishError
from django_eventstream.models import Event
from django_eventstream.outbox import relay
from django_eventstream.storage.orm import DjangoModelStorage
from tests.integration.test_grip_publisher import ControlPort
from tests.outlets import close_outlets
from tests.redis_log import connection_to
from tests.services.ports import free_port

pytestmark = pytest.mark.django_db(transaction=True)


def relay_elsewhere() -> None:
    """What a hub or a relay does that is quicker than the sender."""

    def run() -> None:
        try:
            relay(["a"])
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def send_while_others_number() -> None:
    number = DjangoModelStorage.number

    def number_late(storage: DjangoModelStorage, channel: str) -> list[events.Event]:
        if threading.current_thread() is threading.main_thread():
            relay_elsewhere()
        return number(storage, channel)

    with pytest.MonkeyPatch.context() as patch, transaction.atomic():
        patch.setattr(DjangoModelStorage, "number", number_late)
        send_event("a", "message", 1)
        send_event("a", "message", 2, async_publish=False)


def stored() -> list[int | None]:
    return list(Event.objects.filter(channel="a").order_by("id").values_list("eid", flat=True))


@pytest.fixture
def control(settings):
    settings.EVENTSTREAM_PUBLISH_TIMEOUT = 1
    with closing(ControlPort()) as port:
        settings.GRIP_URL = port.url
        yield port
        close_outlets()


def test_a_refusal_is_told_even_where_others_numbered_the_event(control):
    """Whoever numbered it published it without waiting, and the sender returned normally."""
    control.status = 500
    with pytest.raises(PublishError, match="500"):
        send_while_others_number()
    assert stored() == [1, 2]


def test_a_broker_that_is_away_is_told_even_where_others_numbered_the_event(settings):
    """As with a proxy: `async_publish=False` returned normally."""
    settings.EVENTSTREAM_REDIS = {"host": "127.0.0.1", "port": free_port()}
    with pytest.raises(PublishError, match="Redis"):
        send_while_others_number()
    assert stored() == [1, 2]


def test_the_sender_waits_until_what_others_numbered_is_published(control):
    send_while_others_number()
    assert control.ids() == [1, 2, 2]


def test_a_broker_that_takes_events_lets_the_sender_return(settings, redis_server):
    settings.EVENTSTREAM_REDIS = connection_to(redis_server)
    send_while_others_number()
    assert stored() == [1, 2]


def test_nothing_is_published_twice_where_the_sender_numbered_its_event(control):
    with transaction.atomic():
        send_event("a", "message", 1, async_publish=False)
    send_event("a", "message", 2, async_publish=False)
    assert control.ids() == [1, 2]
