"""Middleware that compresses, in front of a stream, in a real server and a real browser."""

from __future__ import annotations

import urllib.request

import pytest
from django.conf import settings

from tests.services.deadline import HEALTHY, wait_until

GZIP = "django.middleware.gzip.GZipMiddleware"
# Of the package django-http-compression: Zstandard, Brotli and gzip.
ANY = "django_http_compression.middleware.HttpCompressionMiddleware"

LISTEN = """
window.numbers = [];
window.source = new EventSource(arguments[0]);
window.source.addEventListener("stream-open", () => { window.isOpen = true; });
window.source.onmessage = (event) => window.numbers.push(JSON.parse(event.data));
"""


@pytest.fixture(
    params=[("uvicorn", GZIP), ("uvicorn+wrapper", GZIP), ("uvicorn", ANY)],
    ids=lambda param: f"{param[0]}-{param[1].rpartition('.')[2]}",
)
def server(request, app_server, sqlite_only):
    kind, compression = request.param
    middleware = [compression, *settings.MIDDLEWARE]
    return app_server(sqlite_only, kind, settings={"MIDDLEWARE": middleware})


def test_a_stream_is_never_compressed(server):
    """GZipMiddleware makes a gzip member of each chunk, and browsers read the first one only.

    The other keeps a compressor for each stream, of 0.85 MB.
    """
    request = urllib.request.Request(
        f"{server.url}/events/?channel=a", headers={"Accept-Encoding": "gzip, br, zstd"}
    )
    with urllib.request.urlopen(request, timeout=HEALTHY) as response:
        assert response.headers["Content-Encoding"] == "identity"
        assert response.readline().startswith(b":")


def test_a_browser_gets_every_event_behind_gzip(server, browser, unique_channel):
    browser.driver.get(f"{server.url}/stats/")
    url = f"{server.url}/events/?channel={unique_channel}"
    browser.driver.execute_script(LISTEN, url)
    wait_until(lambda: browser.driver.execute_script("return window.isOpen === true"))
    for number in range(5):
        server.send((unique_channel, "message", number))
    received = "return window.numbers"
    wait_until(lambda: browser.driver.execute_script(received) == [0, 1, 2, 3, 4])
