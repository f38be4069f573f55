"""The tests' Celery application, as `celery --app tests.celery_worker` loads it."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import worker_process_shutdown
from celery.utils.log import get_task_logger
from django.contrib.auth import get_user_model

from django_eventstream import send_event
from django_eventstream.processes import flush
from tests.services.celery import LAST_WORDS

logger = get_task_logger(__name__)

app = Celery("tests", broker=os.environ["EVENTSTREAM_TEST_BROKER"])
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True


@worker_process_shutdown.connect
def publish_the_rest(**kwargs: object) -> None:
    logger.warning(LAST_WORDS)
    flush()


@worker_process_shutdown.connect
def leave_at_once(**kwargs: object) -> None:
    """Celery would wait a second, in which most brokers take what is left."""
    os._exit(0)


@app.task
def send(channel: str, number: int) -> None:
    """Sends one event."""
    send_event(channel, "message", {"channel": channel, "n": number})


@app.task
def make_user(name: str) -> None:
    """Does nothing but use the database."""
    get_user_model().objects.create(username=name)
