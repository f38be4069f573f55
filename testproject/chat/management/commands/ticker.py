"""A process of its own, without a web server, that sends events."""

import os
import signal
import threading

from django.core.management.base import BaseCommand
from django.utils import timezone

from chat.channels import TICKER
from django_eventstream import send_event
from django_eventstream.exceptions import StorageUnavailableError


class Command(BaseCommand):
    help = "Sends the time on the channel `ticker` once per second, until it is stopped."

    def handle(self, *args, **options):
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        while not stopped.wait(1):
            self.tick()

    def tick(self):
        try:
            send_event(TICKER, "tick", {"sent": timezone.now(), "pid": os.getpid()})
        except StorageUnavailableError as error:
            self.stderr.write(f"A tick was not sent: {error}")
