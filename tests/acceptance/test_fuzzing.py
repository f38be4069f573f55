"""Nobody sees what only another may see, whatever is asked of real servers.

A minute of it is in the suite. For longer: `EVENTSTREAM_FUZZ_EXAMPLES=20000 pytest -k fuzzing`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import jwt
import pytest
from django.contrib.auth import get_user_model
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import fuzzing
from tests.fuzzing import CHANNELS, STAFF, USERS, Loot, Request, ask_for
from tests.services.deadline import wait_until
from tests.services.ports import free_port
from tests.services.process import private_directory, remove_directory
from tests.services.pushpin import GRIP_KEY, Pushpin, route_to
from tests.services.python import start_python
from tests.services.servers import AppServer
from tests.settings import INSTALLED_APPS

BY_HAND = os.environ.get("EVENTSTREAM_FUZZ_EXAMPLES")
EXAMPLES = int(BY_HAND or 200)
AT_ONCE = 8
PROXIES = ("keyed proxy", "keyless proxy")

SEND_FOR_EVER = """
import itertools, sys, time
from django_eventstream import send_events
channels = sys.argv[1:]
for n in itertools.count(1):
    send_events([(name, "message", f"secret-of-{name}-{n}") for name in channels])
    time.sleep(0.02 if n > 20 else 0)
"""


@dataclass
class Sites:
    """One database behind servers of several kinds, and two proxies."""

    ports: dict[str, int]
    servers: list[AppServer]
    cookies: dict[str, str]
    loot: Loot = field(default_factory=Loot)
    seen: int = 0

    def new_log(self) -> str:
        """What the servers have logged since it was asked last."""
        text = "".join(server.log_text() for server in self.servers)
        new, self.seen = text[self.seen :], len(text)
        return new


def configure(grip_url: str) -> dict[str, object]:
    return {
        "GRIP_URL": grip_url,
        "EVENTSTREAM_CHANNELMANAGER_CLASS": "tests.fuzzing.Guarded",
        "EVENTSTREAM_ALLOW_ORIGINS": ["https://elsewhere.example"],
        "INSTALLED_APPS": [*INSTALLED_APPS, "rest_framework"],
        "ROOT_URLCONF": "tests.drf",
    }


def pair(stack: ExitStack, database, kind: str, key: str) -> tuple[Pushpin, AppServer]:
    """A server and the proxy in front of it."""
    port = free_port()
    proxy = stack.enter_context(Pushpin([route_to(port)], key=key, handler={"message_wait": 300}))
    configured = configure(proxy.grip_url)
    server = AppServer(kind, database=database.settings, settings=configured, port=port)
    return proxy, stack.enter_context(server)


@pytest.fixture(scope="module")
def sites(database_of, django_db_blocker) -> Iterator[Sites]:
    with django_db_blocker.unblock(), ExitStack() as stack:
        database = database_of("sqlite")
        database.empty()
        with database.as_default():
            for name in USERS:
                get_user_model().objects.create(username=name, is_staff=name == STAFF)
        keyed, wsgi = pair(stack, database, "granian-wsgi", GRIP_KEY)
        keyless, asgi = pair(stack, database, "uvicorn+wrapper", "")
        plain = AppServer("uvicorn", database=database.settings, settings=configure(keyed.grip_url))
        stack.enter_context(plain)
        directory = private_directory("fuzz")
        stack.callback(remove_directory, directory)
        proxies = [
            {"control_uri": proxy.control_url, "control_iss": "pushpin", "key": proxy.key}
            for proxy in (keyed, keyless)
        ]
        sender = start_python(
            SEND_FOR_EVER,
            *CHANNELS,
            log=directory / "sender.log",
            database=database.settings,
            settings={**configure(""), "GRIP_PROXIES": proxies},
        )
        stack.callback(sender.kill)
        ports = {
            "keyed proxy": keyed.port,
            "keyless proxy": keyless.port,
            "plain": plain.port,
            "wrapper": asgi.port,
            "wsgi": wsgi.port,
        }
        cookies = {name: plain.log_in(name)["Cookie"] for name in USERS}
        yield Sites(ports, [wsgi, asgi, plain], cookies)


def test_secrets_are_seen_by_those_who_may_read_them(sites):
    """Else the fuzzer would look for what cannot be there."""
    targets = [target for target in sites.ports if target != "wsgi"]

    def visible(target: str, user: str, channel: str) -> bool:
        [answer] = fuzzing.send_all([ask_for(target, user, channel)], sites.ports, sites.cookies)
        assert not answer.leaks
        return f"secret-of-{channel}-".encode() in answer.received

    for target in targets:
        for user, channel in [("", "open"), ("alice", "own-alice"), ("carol", "staff-room")]:
            wait_until(lambda t=target, u=user, c=channel: visible(t, u, c))
        assert not visible(target, "bob", "own-alice")


def test_an_answer_with_the_secrets_of_another_is_seen_as_a_leak():
    stolen = fuzzing.Answer(ask_for("plain", "bob", "open"), b"data: secret-of-own-alice-12\n")
    assert stolen.leaks == {"own-alice"}


def signatures() -> list[str]:
    """Of strangers, of a proxy long ago, and of the same key for another purpose."""
    now = int(time.time())
    valid = {"iss": "pushpin", "exp": now + 3600}
    return [
        jwt.encode(valid, "another-key-of-at-least-32-bytes", "HS256"),
        jwt.encode({"iss": "pushpin", "exp": now - 3600}, GRIP_KEY, "HS256"),
        jwt.encode({"iss": "elsewhere", "exp": now + 3600}, GRIP_KEY, "HS256"),
        jwt.encode({"iss": "pushpin"}, GRIP_KEY, "HS256"),
        jwt.encode(valid, "", "none"),
    ]


@pytest.mark.timeout(120 + EXAMPLES * 2)
def test_fuzzing_shows_nobody_what_only_another_may_see(sites):
    """Three users with different rights and a stranger, directly and through two proxies."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=not BY_HAND,
        database=None,
        # To shrink what was found takes minutes.
        phases=[Phase.generate, *([Phase.shrink] if BY_HAND else [])],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(
            fuzzing.requests([*sites.ports, *PROXIES], sites.loot, signatures()),
            min_size=AT_ONCE,
            max_size=AT_ONCE,
        )
    )
    def fuzz(requests: list[Request]) -> None:
        for answer in fuzzing.send_all(requests, sites.ports, sites.cookies):
            assert not answer.leaks, answer
            assert not answer.fault, answer
            assert answer.status not in (500, 502), answer
            assert b"Traceback" not in answer.received, answer
            sites.loot.take(answer)
        assert "Traceback" not in (log := sites.new_log()), log

    fuzz()
