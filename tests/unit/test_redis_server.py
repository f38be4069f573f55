"""Where a Redis is: options, or the URL that Django and channels take."""

from __future__ import annotations

import pytest

from django_eventstream.redis_server import RedisServer


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://one.example", {"host": "one.example"}),
        (
            "redis://anna:p%2Fw@one.example:6380/2?socket_timeout=1.5",
            {
                "host": "one.example",
                "port": 6380,
                "db": 2,
                "username": "anna",
                "password": "p/w",
                "socket_timeout": 1.5,
            },
        ),
        ("rediss://one.example/1", {"host": "one.example", "db": 1, "ssl": True}),
        ("unix:///run/redis.sock?db=3", {"unix_socket_path": "/run/redis.sock", "db": 3}),
    ],
)
def test_a_url_is_as_good_as_options(settings, url, expected):
    settings.EVENTSTREAM_REDIS = url
    server = RedisServer.from_settings("REDIS")
    assert dict(server.options) == expected
    assert server.news_channel == f"eventstream:news:{expected.get('db', 0)}"
    for client in (server.make_client(), server.make_async_client()):
        said = client.connection_pool.connection_kwargs
        assert said.get("path") == expected.get("unix_socket_path")
        assert ("ssl" in client.connection_pool.connection_class.__name__.lower()) == (
            "ssl" in expected
        )
