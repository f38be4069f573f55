"""One request to the publishing port of a GRIP proxy."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import jwt

from django_eventstream.proxies import Proxy

TOKEN_SECONDS = 3600
"""Life of the signature on a request."""


class RefusedError(Exception):
    """The proxy read the request and does not want it: trying again makes no sense."""


def post(proxy: Proxy, bodies: Sequence[bytes], timeout: float) -> None:
    """Publish encoded items, all or none of them.

    Blocks for up to the timeout until it is connected, and for up to the timeout after that.
    Raises `RefusedError`; OSError or HTTPException if the proxy cannot be reached or fails.
    """
    target = urlsplit(proxy.control_uri)
    connection = _connect(target.scheme, target.netloc, timeout)
    query = f"?{target.query}" if target.query else ""
    try:
        connection.connect()
        # Of the connection it is the limit of each single step: a proxy that sends byte by byte
        # would take any time.
        deadline = time.monotonic() + timeout
        connection.response_class = partial(_Answer, deadline=deadline)  # type: ignore[assignment]
        connection.request(
            "POST",
            f"{target.path}/publish/{query}",
            b'{"items":[' + b",".join(bodies) + b"]}",
            {"Content-Type": "application/json", **_authorization(proxy)},
        )
        answer = connection.getresponse()
        said = answer.read(500).decode(errors="replace")
    finally:
        connection.close()
    if answer.status in (400, 413):
        raise RefusedError(f"{answer.status} {said}")
    if not 200 <= answer.status < 300:
        raise OSError(f"it answered {answer.status} {said}")


class _Answer(http.client.HTTPResponse):
    """An answer that is complete before `time.monotonic()` reaches the deadline, or times out."""

    def __init__(self, sock: socket.socket, *args: Any, deadline: float, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Bytes(self.fp.detach(), sock, deadline))


class _Bytes(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._socket = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _connect(scheme: str, host: str, timeout: float) -> http.client.HTTPConnection:
    if scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, timeout=timeout, context=context)
    return http.client.HTTPConnection(host, timeout=timeout)


def _authorization(proxy: Proxy) -> dict[str, str]:
    if not proxy.key:
        return {}
    if proxy.issuer:
        claim = {"iss": proxy.issuer, "exp": int(time.time()) + TOKEN_SECONDS}
        return {"Authorization": f"Bearer {jwt.encode(claim, proxy.key, 'HS256')}"}
    text = proxy.key.decode() if isinstance(proxy.key, bytes) else proxy.key
    return {"Authorization": f"Bearer {text}"}
