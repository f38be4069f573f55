"""Free TCP ports on loopback."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

LOWEST = 10_000
# Outgoing connections take their ports from this range. A server that is restarted on a port of it
# may find a client's connection there, and a client may even be connected to itself.
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
# A test process beside this one has ports of its own: one whose server is just restarting is free.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
handed_out: set[int] = set()


def free_port() -> int:
    """A port that nothing listens on and no client gets by chance; never the same one twice."""
    candidates = set(range(LOWEST + WORKER, first_ephemeral_port(), WORKERS)) - handed_out
    for port in random.sample(sorted(candidates), k=200):
        if is_free(port):
            handed_out.add(port)
            return port
    raise OSError("no free port on 127.0.0.1")


def first_ephemeral_port() -> int:
    return int(EPHEMERAL.read_text().split()[0]) if EPHEMERAL.exists() else 32_768


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
