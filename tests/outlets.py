"""The queues to GRIP proxies that this process has."""

from __future__ import annotations

from django_eventstream import processes
from django_eventstream.publishers.outlet import Outlet


def close_outlets() -> None:
    """Forgets what waits in them, and ends their threads."""
    for finish in processes._at_exit.living():
        owner = getattr(finish, "__self__", None)
        if isinstance(owner, Outlet):
            owner.close()
