"""The sender: a process of its own, beside the web server."""

import signal
import threading

from django.core.management.base import BaseCommand
from django.utils import timezone

from django_eventstream import send_event


class Command(BaseCommand):
    help = "Sends the time on the channel `time` once per second, until it is stopped."

    def handle(self, *args, **options):
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        while not stopped.wait(1):
            send_event("time", "message", {"time": timezone.now()})
