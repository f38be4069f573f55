from __future__ import annotations

import json

import pytest

from tests.infrastructure.toy_server import ToyServer
from tests.sse_client import StreamClient, assert_sequence
from tests.swarm import Swarm
from tests.transcript import Transcript

OPEN = b"event: stream-open\ndata:\nid: a:0\n\n"


def event(number: int) -> bytes:
    data = json.dumps({"channel": "a", "n": number})
    return f"event: message\ndata: {data}\nid: a:{number}\n\n".encode()


def test_it_connects_again_with_its_cursor_and_records_everything_once():
    answers = [
        (200, [OPEN, event(1), event(2)[:20], event(2)[20:], None]),
        (200, [OPEN, event(3), event(4)[:-1], None]),
        (503, [b"not now", None]),
        (200, [OPEN, event(4)]),
    ]
    with ToyServer(*answers) as server, StreamClient(server.url, retry=0.001) as client:
        client.wait_for(lambda client: client.has("a", 4))
        assert server.cursors == [None, "a:2", "a:3", "a:3"]
        assert_sequence(client, "a", range(1, 5))
        assert [connection.status for connection in client.connections] == [200, 200, 503, 200]
        assert client.connections[2].body == b"not now"
        assert [connection.end for connection in client.connections[:2]] == ["complete"] * 2


def test_a_cut_is_felt_at_once():
    with ToyServer((200, [OPEN])) as server, StreamClient(server.url, retry=0.001) as client:
        client.wait_open()
        client.cut()
        client.wait_for(lambda client: len(client.connections) == 2 and client.is_open)
        assert client.connections[0].end == "cut"


def test_like_a_browser_it_gives_up_where_there_is_no_stream():
    with ToyServer((404, [None])) as server:
        client = StreamClient(server.url, retry=0.001, persistent=False).start()
        client.wait_for(lambda client: not client._thread.is_alive())
        assert [connection.status for connection in client.connections] == [404]


def test_it_obeys_the_servers_reconnection_time():
    with (
        ToyServer((200, [b"retry: 1\n\n", None])) as server,
        StreamClient(server.url, retry=None) as client,
    ):
        client.wait_for(lambda client: len(client.connections) > 2)
        assert client.retry == 1


def test_a_paused_client_goes_on_where_it_was():
    with ToyServer((200, [OPEN, event(1)])) as server, StreamClient(server.url) as client:
        client.pause()
        client.resume()
        client.wait_for(1)


def test_a_refused_connection_is_recorded_and_tried_again():
    with ToyServer((200, [OPEN])) as server:
        url = server.url
    with StreamClient(url, retry=0.001) as client:
        client.wait_for(lambda client: len(client.connections) > 2)
        assert "refused" in client.connections[0].end


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ([1, 3], r"missing: \[2\]"),
        ([1, 2, 2, 3], r"twice: \[2\]"),
        ([1, 3, 2], r"out of order: \[2\]"),
        ([1, 2, 3, 4], r"unexpected: \[4\]"),
    ],
)
def test_a_wrong_sequence_is_explained(numbers, complaint):
    transcript = Transcript()
    transcript.connecting()
    for number in numbers:
        transcript.receive(event(number))
    with pytest.raises(AssertionError, match=complaint):
        assert_sequence(transcript, "a", [1, 2, 3])


def test_a_swarm_of_clients_is_cut_and_comes_back():
    with (
        ToyServer((200, [OPEN, event(1)])) as server,
        Swarm([server.url] * 50, retry=0.001) as swarm,
    ):
        swarm.wait_open()
        swarm.wait_for(1)
        swarm.cut()
        swarm.wait_for(lambda member: len(member.connections) > 1 and member.is_open)
        assert all(member.connections[1].sent_last_event_id == "a:1" for member in swarm.members)
