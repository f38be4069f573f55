"""The last event of a sender that does not live on, when no proxy hears of it, is found soon."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager

import pytest
from django.contrib.auth import get_user_model

from django_eventstream.models import Lease
from tests.acceptance.test_crash_between_commit_and_publish import KILLED_AFTER_COMMIT
from tests.proxied import Middleman
from tests.services.deadline import wait_until
from tests.services.ports import free_port
from tests.services.python import manage, run_python
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

    def wait_quiet(self, client: StreamClient) -> None:
        """Waits until the proxy asked what it asks a second after a channel's first subscriber."""
        client.wait_open()
        wait_until(lambda: "/events/_next/" in self.proxy.log_text())

    def run_cut_off(self, code: str, **values: object) -> None:
        """Runs code in `manage.py shell`, from where no proxy can be reached."""
        unreachable = self.grip_url(f"http://127.0.0.1:{free_port()}")
        settings = {**MANAGER, "GRIP_URL": unreachable}
        code = code.format(**values)
        manage("shell", "-v", "0", "-c", code, database=self.database.settings, settings=settings)

    def probes(self, channel: str, n: int) -> int:
        """How often a proxy was to let connections find out that they miss this event."""
        name, last_id = f"events-{channel}", str(n)
        found = [item for item in self.middleman.items if item.get("prev-id") == last_id]
        return len([item for item in found if item["id"] == last_id and item["channel"] == name])

    def send_cut_off(self, channel: str, n: int) -> float:
        self.run_cut_off(SEND, channel=channel, n=n)
        return time.monotonic()

    def wait_for_holder(self, but: int | None = None) -> int:
        """The process that has the lease, once it is another than this one."""

        def find() -> int | None:
            lease = Lease.objects.filter(name="watch").first()
            pid = int(lease.holder.split(":")[1]) if lease and lease.holder else None
            return pid if pid != but else None

        return wait_until(find)


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


def test_the_last_event_of_a_sender_that_is_cut_off_arrives_within_ten_seconds(
    site, unique_channel
):
    """It arrived when the proxy asked for the connection by itself: after half an hour or so."""
    with site() as here, here.client(unique_channel) as client:
        here.wait_quiet(client)
        here.server.send(*numbered(unique_channel, [1]))
        client.wait_for(1)
        # The second one on a channel that was probed a moment ago.
        for n in (2, 3):
            sent_at = here.send_cut_off(unique_channel, n)
            client.wait_for(n)
            assert client.events[-1].at - sent_at < TARGET
        assert_sequence(client, unique_channel, [1, 2, 3])
        assert len(client.connections) == 1
        # Both workers take part in the watch.
        assert [here.probes(unique_channel, n) for n in (2, 3)] == [1, 1]


def test_when_the_process_that_watches_is_killed_another_goes_on(site, unique_channel):
    with site() as here, here.client(unique_channel) as client:
        here.wait_quiet(client)
        holder = here.wait_for_holder()
        os.kill(holder, signal.SIGKILL)
        here.send_cut_off(unique_channel, 1)
        # Its worker was replaced: any request takes part, a health check, too.
        wait_until(here.server.is_ready)
        client.wait_for(1)
        assert here.wait_for_holder(but=holder)
        assert here.probes(unique_channel, 1) == 1


def test_a_revocation_that_no_proxy_heard_of_ends_the_stream_soon(site, unique_channel):
    """The user read on until the proxy asked for the connection by itself."""
    channel = f"staff-{unique_channel}"
    with site(**MANAGER) as here:
        headers = here.server.log_in("alice")
        get_user_model().objects.filter(username="alice").update(is_staff=True)
        with here.client(channel, headers=headers) as client:
            here.wait_quiet(client)
            here.server.send(*numbered(channel, [1]))
            client.wait_for(1)
            here.run_cut_off(REVOKE, channel=channel)
            client.wait_for(lambda c: c.of_type("stream-error"), timeout=TARGET)


def test_an_event_of_a_killed_sender_arrives_soon_behind_a_proxy(site, unique_channel):
    """It waited for the next send of a process that lives on, or for the proxy to ask."""
    with site() as here, here.client(unique_channel) as client:
        here.wait_quiet(client)
        here.server.send(*numbered(unique_channel, [1]))
        client.wait_for(1)
        settings = {"GRIP_URL": here.proxy.grip_url}
        run_python(
            KILLED_AFTER_COMMIT, unique_channel, "2", "3",
            database=here.database.settings, settings=settings,
        )  # fmt: skip
        client.wait_for(3)
        assert_sequence(client, unique_channel, [1, 2, 3])
