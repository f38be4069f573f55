"""`runserver` behind a GRIP service in the cloud, which reaches this machine through ngrok."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from typing import Any
from urllib.parse import urlencode, urlsplit

import jwt
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV
from django.utils.functional import cached_property

from django_eventstream.proxies import Proxy, get_proxies

TUNNELS_URL = "http://127.0.0.1:4040/api/tunnels"
"""Where ngrok tells of its tunnels, on the machine that it runs on."""

TIMEOUT = 10
"""Seconds that ngrok or the GRIP service may take."""

TOKEN_SECONDS = 600


class Command(BaseCommand):
    """Makes the tunnel the origin of each GRIP service, and runs the project's own `runserver`."""

    help = "Set the ngrok tunnel as the origin of the GRIP service, then do as runserver does."
    requires_system_checks = ()

    @cached_property
    def _runserver(self) -> BaseCommand:
        found = get_commands()["runserver"]
        return found if isinstance(found, BaseCommand) else load_command_class(found, "runserver")

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what `runserver` takes, which does the checks."""
        self._runserver.add_arguments(parser)
        parser.add_argument("--skip-checks", action="store_true", help="Skip system checks.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Set the origin once, not each time the code is loaded again."""
        if os.environ.get(DJANGO_AUTORELOAD_ENV) != "true":
            self._set_origins(options["addrport"] or "")
        self._runserver.execute(*args, **options)

    def _set_origins(self, address: str) -> None:
        proxies = [proxy for proxy in get_proxies() if proxy.key]
        if not proxies:
            raise CommandError("There is no GRIP service with a key in GRIP_URL or GRIP_PROXIES.")
        port = address.rpartition(":")[2] or getattr(self._runserver, "default_port", "8000")
        host = find_tunnel(port)
        for proxy in proxies:
            self.stdout.write(f"Setting ngrok tunnel {host} as GRIP origin")
            set_origin(proxy, host)


def find_tunnel(port: str) -> str:
    """Return the public host of ngrok's tunnel to a port; of its only tunnel, whatever the port."""
    try:
        with urllib.request.urlopen(TUNNELS_URL, timeout=TIMEOUT) as answer:
            tunnels = json.load(answer)["tunnels"]
        ports = {
            urlsplit(tunnel["public_url"]).hostname: _port(tunnel["config"]["addr"])
            for tunnel in tunnels
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(
            f"ngrok does not answer at {TUNNELS_URL} ({error}). "
            f"Install ngrok, and run `ngrok http {port}` in another shell."
        ) from error
    hosts = [host for host, its_port in ports.items() if str(its_port) == port] or list(ports)
    if len(hosts) != 1:
        raise CommandError(f"ngrok has no tunnel to port {port}: run `ngrok http {port}`.")
    return str(hosts[0])


def set_origin(proxy: Proxy, host: str) -> None:
    """Tell a GRIP service where to send its requests."""
    claims = {"iss": proxy.issuer, "exp": int(time.time()) + TOKEN_SECONDS}
    token = jwt.encode(claims, proxy.key or "", algorithm="HS256")
    origin = {
        "host": host, "port": 80, "ssl_host": host, "ssl_port": 443,
        "rewrite_host": "true", "over_http": "true",
    }  # fmt: skip
    request = urllib.request.Request(
        f"{proxy.control_uri}/http/default/",
        data=urlencode(origin).encode(),
        headers={"Authorization": f"Bearer {token}"},
    )
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise CommandError(f"{proxy.control_uri} did not take the origin: {error}") from error


def _port(address: str) -> int | None:
    return urlsplit(address if "://" in address else f"//{address}").port
