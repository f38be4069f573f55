"""What `manage.py check` would say, for processes before which nobody runs it.

Behind a server no check runs: a channel manager whose setting is misspelt leaves every channel
open to everybody, and nothing says so. So the first request for a stream of each process has the
mistakes logged. It does not wait for that, and nothing that goes wrong there changes its answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from threading import Thread

from django.core.checks import CheckMessage, run_checks

from django_eventstream.conf import CHECK_TAG
from django_eventstream.processes import after_fork

logger = logging.getLogger(__name__)

TAKEN_SERIOUSLY = ("eventstream.W001",)
"""A setting that nobody reads is but a warning to `check`, which cannot know what it was for."""


class FirstStream:
    """Knows whether there was one in this process. Any thread may call it."""

    def __init__(self) -> None:
        self._begin_anew()
        after_fork(self._begin_anew)

    def _begin_anew(self) -> None:
        # One thread gets it, with no lock that a fork could leave held.
        self._turns: Iterator[bool] = iter((True,))

    def check(self) -> None:
        """Have the mistakes logged, once in a process, by a thread that nobody waits for."""
        if not next(self._turns, False):
            return
        try:
            Thread(target=_report, name="eventstream-checks", daemon=True).start()
        except RuntimeError as error:
            logger.debug("The settings are not checked: %s", error)


first_stream = FirstStream()


def _report() -> None:
    try:
        for message in run_checks(tags=[CHECK_TAG]):
            if _is_serious(message):
                logger.error(
                    "%s: %s %s `manage.py check` says it as well.",
                    message.id,
                    message.msg,
                    message.hint,
                )
    except Exception as error:
        # Checks of a project may be under our tag, too.
        logger.warning("The settings could not be checked: %r", error)


def _is_serious(message: CheckMessage) -> bool:
    return not message.is_silenced() and (message.is_serious() or message.id in TAKEN_SERIOUSLY)
