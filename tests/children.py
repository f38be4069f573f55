"""What child processes of tests do: `multiprocessing` finds it by name, however it starts them."""

from __future__ import annotations

import django

import django_eventstream


def send(channel: str, count: int) -> None:
    """Sends events as the last thing that a process does."""
    django.setup()
    for number in range(count):
        django_eventstream.send_event(channel, "message", number)
