"""A log in Redis, whose cursors have an epoch from the beginning, behind a real Pushpin."""

from __future__ import annotations

import pytest

from tests.acceptance.test_pushpin import both_kinds, site  # noqa: F401 - a fixture
from tests.redis_log import connection_to, redis_log, settings_of
from tests.services.redis import Redis
from tests.sse_client import assert_sequence, numbered


@pytest.fixture
def redis(running) -> Redis:
    return running(Redis(appendonly=True))


@both_kinds
def test_nothing_is_lost_when_all_are_killed(site, redis, unique_channels, kind):  # noqa: F811
    channels = unique_channels(2)
    here = site(kind, **settings_of(connection_to(redis)))
    log = redis_log(redis)
    # Of what it is asked while it starts Pushpin loses some: 502 comes after a minute.
    with (
        here.client(*channels, patience=6) as client,
        here.client(*channels, patience=6) as other,
    ):
        clients = (client, other)
        for each in clients:
            each.wait_open()
        for last in (10, 20, 30, 40):
            for n in range(last - 9, last + 1):
                here.server.send(*numbered(channels[0], [n]), *numbered(channels[1], [n]))
            for each in clients:
                each.wait_for(lambda each, last=last: all(each.has(c, last) for c in channels))
            service = {10: here.proxy, 20: redis, 30: here.server}.get(last)
            if service is not None:
                service.kill()
                service.start()
        for each in clients:
            for channel in channels:
                assert_sequence(each, channel, range(1, 41))
            assert not each.of_type("stream-reset")
        assert client.last_event_id.endswith(f",:{log.get_position([]).epoch}")


def test_streams_that_the_proxy_holds_start_over_when_redis_was_emptied(
    site,  # noqa: F811
    redis,
    unique_channel,
):
    here = site("uvicorn", EVENTSTREAM_RECOVERY_SECONDS=2, **settings_of(connection_to(redis)))
    with here.client(unique_channel) as client:
        client.wait_open()
        here.server.send(*numbered(unique_channel, range(1, 11)))
        client.wait_for(10)
        redis.flush()
        here.server.send(*numbered(unique_channel, range(11, 31)))
        client.wait_for(lambda client: client.of_type("stream-reset"))
        reset = client.of_type("stream-reset")[0]
        assert reset.json()["reasons"] == {unique_channel: "epoch"}
        here.server.send(*numbered(unique_channel, range(31, 41)))
        client.wait_for(lambda client: client.has(unique_channel, 40))
        assert client.numbers(unique_channel)[-10:] == list(range(31, 41))
