"""What may be stepped by hand: a server's own `send()`, and nothing that is put around it."""

from __future__ import annotations

import asyncio
from functools import partial, wraps

import pytest
from daphne.server import Server
from hypercorn.protocol.http_stream import HTTPStream
from uvicorn.protocols.http import h11_impl, httptools_impl

from django_eventstream.hub.servers import is_servers_own

CYCLES = [h11_impl.RequestResponseCycle, httptools_impl.RequestResponseCycle]


class OfAProject(h11_impl.RequestResponseCycle):
    async def send(self, message) -> None:
        await super().send(message)


def of(kind: type, name: str):
    """A method of an instance that was never begun."""
    return getattr(object.__new__(kind), name)


@pytest.mark.parametrize(
    "function",
    [of(cycle, name) for cycle in (*CYCLES, OfAProject) for name in ("receive",)]
    + [of(cycle, "send") for cycle in CYCLES]
    + [of(HTTPStream, "app_send"), partial(of(Server, "handle_reply"), object())]
    + [asyncio.Queue.get.__get__(object())],
)
def test_what_the_servers_give_is_their_own(function):
    assert is_servers_own(function)


def wrapped(send):
    @wraps(send)
    async def sending(message) -> None:
        await send(message)

    return sending


class Callable:
    async def __call__(self, message) -> None:
        pass


@pytest.mark.parametrize(
    "function",
    [
        wrapped(of(CYCLES[0], "send")),
        of(OfAProject, "send"),
        Callable(),
        partial(wrapped, of(CYCLES[0], "send")),
        [].append,
    ],
)
def test_what_is_put_around_a_server_is_not(function):
    """`functools.wraps()` makes it look like the server's own."""
    assert not is_servers_own(function)
