"""One request to the publishing port of a GRIP proxy."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import jwt

from django_eventstream.proxies import Proxy

TOKEN_SECONDS = 3600
"""Life of the signature on a request."""


class RefusedError(Exception):
    """The proxy read the request and does not want it: trying again makes no sense."""


def post(proxy: Proxy, bodies: Sequence[bytes], timeout: float) -> None:
    """Publish encoded items, all or none of them. Blocks for up to the timeout at each step.

    Raises `RefusedError`; OSError or HTTPException if the proxy cannot be reached or fails.
    """
    target = urlsplit(proxy.control_uri)
    connection = _connect(target.scheme, target.netloc, timeout)
    query = f"?{target.query}" if target.query else ""
    try:
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
