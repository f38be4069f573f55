"""The command talks to ngrok and to a GRIP service, here two small servers, as 5.3.4 did."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import jwt
import pytest
from django.core.management import CommandError, call_command

from django_eventstream.management.commands import runserver_ngrok
from tests.services.deadline import wait_until
from tests.services.ports import free_port
from tests.services.process import ServerProcess
from tests.services.python import ROOT, django_environment

KEY = "k" * 32
TUNNEL = {"public_url": "https://abc.example", "config": {"addr": "http://localhost:8000"}}


class Answering:
    """A server that answers everything with one JSON value, and keeps what it was asked."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, dict[str, str], str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                outer.asked.append((self.command, self.path, dict(self.headers), body))
                self.send_response(200 if outer.answer is not None else 500)
                self.end_headers()
                self.wfile.write(json.dumps(outer.answer).encode())

            do_POST = do_GET

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def ngrok(monkeypatch) -> Iterator[Answering]:
    server = Answering({"tunnels": [TUNNEL]})
    monkeypatch.setattr(runserver_ngrok, "TUNNELS_URL", f"{server.url}/api/tunnels")
    yield server
    server.close()


@pytest.fixture
def service(settings) -> Iterator[Answering]:
    server = Answering({})
    settings.GRIP_URL = f"{server.url}/realm/mine?iss=mine&key={KEY}"
    yield server
    server.close()


@pytest.fixture
def started(monkeypatch) -> list[dict[str, object]]:
    """What `runserver` would have been started with: it does not end by itself."""
    calls: list[dict[str, object]] = []
    monkeypatch.setattr(
        "django.core.management.commands.runserver.Command.execute",
        lambda self, *arguments, **options: calls.append(options),
    )
    return calls


def test_the_tunnel_becomes_the_origin_and_the_server_starts(ngrok, service, started, capsys):
    call_command("runserver_ngrok", "8000", "--noreload")
    [(method, path, headers, body)] = service.asked
    assert (method, path) == ("POST", "/realm/mine/http/default/")
    claims = jwt.decode(headers["Authorization"].removeprefix("Bearer "), KEY, ["HS256"])
    assert claims["iss"] == "mine"
    assert {name: value for name, [value] in parse_qs(body).items()} == {
        "host": "abc.example",
        "port": "80",
        "ssl_host": "abc.example",
        "ssl_port": "443",
        "rewrite_host": "true",
        "over_http": "true",
    }
    assert "Setting ngrok tunnel abc.example as GRIP origin" in capsys.readouterr().out
    [options] = started
    assert (options["addrport"], options["use_reloader"]) == ("8000", False)


@pytest.mark.parametrize("address", ["9001", "127.0.0.1:9001", "[::1]:9001"])
def test_the_tunnel_of_the_port_is_taken(ngrok, service, started, address):
    other = {"public_url": "https://other.example", "config": {"addr": "localhost:9001"}}
    ngrok.answer = {"tunnels": [TUNNEL, other]}
    call_command("runserver_ngrok", address)
    assert "host=other.example" in service.asked[0][3]


def test_code_that_is_loaded_again_does_not_set_the_origin_again(
    ngrok, service, started, monkeypatch
):
    monkeypatch.setenv("RUN_MAIN", "true")
    call_command("runserver_ngrok")
    assert (len(started), ngrok.asked, service.asked) == (1, [], [])


@pytest.mark.parametrize("answer", [None, {}, [], {"tunnels": [{}]}])
def test_ngrok_that_does_not_answer_is_told_with_what_to_do(ngrok, service, started, answer):
    ngrok.answer = answer
    with pytest.raises(CommandError, match="run `ngrok http 8000` in another shell"):
        call_command("runserver_ngrok")
    assert started == []


def test_ngrok_without_a_tunnel_is_told(ngrok, service, started):
    ngrok.answer = {"tunnels": []}
    with pytest.raises(CommandError, match="no tunnel to port 8000"):
        call_command("runserver_ngrok")


def test_no_service_is_told(ngrok, started, settings):
    with pytest.raises(CommandError, match="GRIP_URL or GRIP_PROXIES"):
        call_command("runserver_ngrok")


def test_a_service_that_refuses_is_told(ngrok, service, started):
    service.answer = None
    with pytest.raises(CommandError, match="did not take the origin"):
        call_command("runserver_ngrok")
    assert started == []


def test_without_ngrok_the_command_ends_and_says_why(sqlite_only, tmp_path):
    """The whole command in a process of its own, to its exit status."""
    settings = {"GRIP_URL": f"http://127.0.0.1:1/realm?iss=me&key={KEY}"}
    env = django_environment(sqlite_only.settings, settings, {"no_proxy": "*"})
    argv = [sys.executable, "-m", "django", "runserver_ngrok", str(free_port())]
    process = ServerProcess(argv, log=tmp_path / "log", env=env, cwd=ROOT)
    assert process.wait() == 1
    assert "CommandError: ngrok does not answer" in process.log_text()


def test_the_server_that_it_starts_answers(ngrok, service, sqlite_only, tmp_path):
    port = free_port()
    code = f"""
from django.core.management import execute_from_command_line
from django_eventstream.management.commands import runserver_ngrok
runserver_ngrok.TUNNELS_URL = {ngrok.url!r}
execute_from_command_line(["manage.py", "runserver_ngrok", "{port}", "--noreload"])
"""
    settings = {"GRIP_URL": f"{service.url}/realm/mine?iss=mine&key={KEY}"}
    env = django_environment(sqlite_only.settings, settings)
    argv = [sys.executable, "-c", code]
    process = ServerProcess(argv, log=tmp_path / "log", env=env, cwd=ROOT)

    asking = Request(f"http://127.0.0.1:{port}/events/", headers={"Accept": "text/event-stream"})

    def answers() -> bool:
        try:
            return urlopen(asking, timeout=2).status == 200
        except OSError:
            return False

    try:
        wait_until(answers, message=process.log_text)
    finally:
        process.kill()
    assert len(service.asked) == 1
