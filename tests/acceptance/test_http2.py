"""Streams over HTTP/2: many on one connection, which a browser shares among its tabs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from django_eventstream import send_events
from tests.http2 import StreamsOfOneConnection
from tests.services.certificate import make_certificate
from tests.services.deadline import wait_until
from tests.services.ports import free_port
from tests.services.servers import AppServer
from tests.sse_client import assert_sequence, numbered

# uvicorn speaks it with another HTTP implementation only, which its `standard` extra lacks.
SERVERS = ("hypercorn+wrapper", "granian+wrapper", "daphne+wrapper")
PADDING = "x" * 1_000


@dataclass
class Http2Server:
    app: AppServer
    url: str

    def streams(self, channels: Sequence[str], **options) -> StreamsOfOneConnection:
        paths = [f"/events/?channel={channel}" for channel in channels]
        return StreamsOfOneConnection(self.url, paths, **options)


@pytest.fixture(params=SERVERS)
def server(request, app_server, sqlite_only, tmp_path) -> Http2Server:
    if not request.param.startswith("daphne"):
        app = app_server(sqlite_only, request.param)
        return Http2Server(app, app.url)
    key, certificate = make_certificate(tmp_path)
    port = free_port()
    endpoint = f"ssl:{port}:privateKey={key}:certKey={certificate}:interface=127.0.0.1"
    app = app_server(sqlite_only, request.param, options=["-e", endpoint])
    return Http2Server(app, f"https://127.0.0.1:{port}")


@pytest.mark.parametrize("server", [*SERVERS, "hypercorn", "granian", "daphne"], indirect=True)
def test_ten_streams_of_one_connection_miss_nothing_when_it_is_cut_and_the_server_killed(
    server, sqlite_only, unique_channels
):
    channels = unique_channels(3)
    chosen = [channels[n % 3] for n in range(10)]
    with server.streams(chosen) as streams:
        streams.wait_open()
        for number in range(1, 31):
            server.app.send(*(numbered(channel, [number])[0] for channel in channels))
            if number % 10 == 0:
                # Nothing is cut where nothing is open: on a loaded machine that was so.
                streams.wait_open()
                streams.cut()
        streams.wait_for(30)
        server.app.kill()
        with sqlite_only.as_default():
            send_events([e for channel in channels for e in numbered(channel, range(31, 41))])
        server.app.start()
        streams.wait_for(40)
        for channel, transcript in zip(chosen, streams.transcripts, strict=True):
            assert_sequence(transcript, channel, range(1, 41))
            assert transcript.of_type("stream-reset") == []
            assert len(transcript.connections) > 3


def test_one_stream_that_is_left_is_forgotten_and_the_others_go_on(server, unique_channel):
    with server.streams([unique_channel] * 4) as streams:
        streams.wait_open()
        assert server.app.stats()["streams"] == 4
        streams.cancel(streams.transcripts[1])
        wait_until(lambda: server.app.stats()["streams"] == 3)
        server.app.send(*numbered(unique_channel, range(1, 11)))
        others = [each for each in streams.transcripts if each is not streams.transcripts[1]]
        wait_until(lambda: all(each.has(unique_channel, 10) for each in others))
        for transcript in others:
            assert_sequence(transcript, unique_channel, range(1, 11))
        assert streams.transcripts[1].events == []
        assert {len(transcript.connections) for transcript in streams.transcripts} == {1}


def test_a_stream_that_is_not_read_holds_up_no_other_of_its_connection(
    server, sqlite_only, unique_channel
):
    with server.streams([unique_channel] * 3) as streams:
        streams.wait_open()
        slow, *quick = streams.transcripts
        streams.pause(slow)
        with sqlite_only.as_default():
            for start in range(1, 1_001, 100):
                events = numbered(unique_channel, range(start, start + 100))
                send_events([(c, t, {**data, "text": PADDING}) for c, t, data in events])
        wait_until(lambda: all(each.has(unique_channel, 1_000) for each in quick))
        assert not slow.has(unique_channel, 500)
        streams.resume(slow)
        streams.wait_for(lambda each: each.has(unique_channel, 1_000))
        for transcript in streams.transcripts:
            assert_sequence(transcript, unique_channel, range(1, 1_001))
            assert len(transcript.connections) == 1


def test_on_sigterm_streams_end_and_clients_come_back_to_the_next_server(server, unique_channel):
    if server.app.kind == "hypercorn" and sys.version_info >= (3, 12, 1):
        pytest.skip("since Python 3.12.1 hypercorn waits until its clients close their connections")
    with server.streams([unique_channel] * 3) as streams:
        streams.wait_open()
        server.app.send(*numbered(unique_channel, [1]))
        streams.wait_for(1)
        server.app.restart()
        server.app.send(*numbered(unique_channel, [2]))
        streams.wait_for(2)
        for transcript in streams.transcripts:
            assert_sequence(transcript, unique_channel, [1, 2])
