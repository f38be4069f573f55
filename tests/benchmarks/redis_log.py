"""Sending to a log in Redis, with one in SQLite next to it: what an event costs its sender."""

from __future__ import annotations

from django.test.utils import override_settings

from django_eventstream import send_event, send_events
from django_eventstream.backends import get_storage
from tests.benchmarks.figures import note, show
from tests.benchmarks.sends import BULK, DATA, Run
from tests.benchmarks.stores import new_channel, store
from tests.redis_log import connection_to, settings_of
from tests.services.redis import Redis

ROUNDS = 3
SECONDS = 1.0

SERVERS = {
    "in memory": {},
    "appendonly, everysec": {"appendonly": True, "fsync": "everysec"},
    "appendonly, always": {"appendonly": True},
}


def main() -> None:
    with store("sqlite"):
        for title, options in SERVERS.items():
            with Redis(**options) as redis:
                compare(title, redis)


def compare(title: str, redis: Redis) -> None:
    in_redis = override_settings(**settings_of(connection_to(redis)))
    channel, other_channel = new_channel(), new_channel()
    ours = Run(lambda: send_event(channel, "message", DATA))
    peer = Run(lambda: send_event(channel, "message", DATA))
    bulk = Run(lambda: send_events([(other_channel, "message", DATA)] * BULK))
    for _ in range(ROUNDS):
        with in_redis:
            ours.go(SECONDS)
        peer.go(SECONDS)
    with in_redis:
        bulk.go(SECONDS)
        assert_sent(channel, len(ours.durations))
        assert_sent(other_channel, len(bulk.durations) * BULK)
    show("redis", f"{title}: {ours.rate:,.0f} sends/s, {ours.cost}")
    show("redis", f"SQLite next to it: {peer.rate:,.0f} sends/s, {peer.cost}")
    show("redis", f"{title}, send_events() of {BULK:,}: {bulk.rate * BULK:,.0f} events/s")
    cpu = ours.cpu_seconds / len(ours.durations) * 1e6
    other = peer.cpu_seconds / len(peer.durations) * 1e6
    note(f"send to Redis ({title})", cpu, "µs CPU", peer=f"SQLite {other:,.0f} µs")


def assert_sent(channel: str, expected: int) -> None:
    """The log has counted every event, and has the last of them."""
    assert get_storage().get_position([channel]).ids == {channel: expected}
    found = get_storage().read(channel, expected - 9, 100)
    assert [event.id for event in found] == list(range(expected - 8, expected + 1))
