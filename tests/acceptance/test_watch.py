"""The last event of a sender that does not live on, when no proxy hears of it, is found soon."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest

from django_eventstream.models import Lease
from tests.proxied import Middleman
from tests.services.deadline import wait_until
from tests.services.ports import free_port
from tests.services.python import manage
from tests.sse_client import StreamClient, assert_sequence, numbered

TARGET = 10
"""Seconds, of issue 7."""

SEND = """
import sys
from django_eventstream import send_events
from tests.sse_client import numbered
send_events(numbered({channel!r}, [{n}]))
"""

REVOKE = """
from django.contrib.auth import get_user_model
from django_eventstream import channel_permission_changed
user = get_user_model().objects.get(username="alice")
user.is_staff = False
user.save()
channel_permission_changed(user, {channel!r})
"""

MANAGER = {"EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.proxied.MembersOnly"}


class Site:
    """Two gunicorn workers behind a proxy; a middleman counts what they post to it."""

    def __init__(self, app_server, pushpin, database, **settings) -> None:
        port = free_port()
        self.database = database
        self.proxy = pushpin(port, handler={"message_wait": 300})
        self.middleman = Middleman(self.proxy.control_url)
        settings = {**settings, "GRIP_URL": self.grip_url(self.middleman.url)}
        self.server = app_server(
            database, "gunicorn", port=port, settings=settings, options=["--workers", "2"]
        )

    def grip_url(self, control_url: str) -> str:
        return self.proxy.grip_url.replace(self.proxy.control_url, control_url)

    def client(self, channel: str, **options) -> StreamClient:
        return StreamClient(f"{self.proxy.url}/events/?channel={channel}", **options)

    def run_cut_off(self, code: str, **values: object) -> None:
        """Runs code in `manage.py shell`, from where no proxy can be reached."""
        unreachable = self.grip_url(f"http://127.0.0.1:{free_port()}")
        settings = {**MANAGER, "GRIP_URL": unreachable}
        code = code.format(**values)
        manage("shell", "-v", "0", "-c", code, database=self.database.settings, settings=settings)

    def send_cut_off(self, channel: str, n: int) -> float:
        self.run_cut_off(SEND, channel=channel, n=n)
        return time.monotonic()

    def wait_for_holder(self, but: int | None = None) -> int:
        """The process that has the lease, once it is another than this one."""

        def find() -> int | None:
            lease = Lease.objects.first()
            pid = int(lease.holder.split(":")[1]) if lease and lease.holder else None
            return pid if pid != but else None

        return wait_until(find, 20)


@pytest.fixture
def site(app_server, pushpin, database_of, django_db_blocker):
    made: list[Site] = []

    @contextmanager
    def start(kind: str = "postgres", **settings):
        with django_db_blocker.unblock():
            database = database_of(kind)
            database.empty()
            with database.as_default():
                made.append(Site(app_server, pushpin, database, **settings))
                yield made[0]

    yield start
    for each in made:
        each.middleman.close()


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_the_last_event_of_a_sender_that_is_cut_off_arrives_within_ten_seconds(
    site, unique_channel, kind
):
    """It arrived when the proxy asked for the connection by itself: after half an hour or so."""
    with site(kind) as here, here.client(unique_channel) as client:
        client.wait_open()
        here.server.send(*numbered(unique_channel, [1]))
        client.wait_for(1)
        sent_at = here.send_cut_off(unique_channel, 2)
        client.wait_for(2)
        first_delay = client.events[-1].at - sent_at
        # One that was probed a moment ago.
        sent_at = here.send_cut_off(unique_channel, 3)
        client.wait_for(3)
        assert max(first_delay, client.events[-1].at - sent_at) < TARGET
        print("delays", first_delay, client.events[-1].at - sent_at)
        assert_sequence(client, unique_channel, [1, 2, 3])
        assert len(client.connections) == 1
