"""Letting go of what Django keeps for a request that goes on without its thread."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor

from asgiref.sync import SyncToAsync
from django.db import connections

logger = logging.getLogger(__name__)

RELEASE_SECONDS = 1.0
"""How long a stream waits for the connections of its request to be closed."""


async def release_request() -> None:
    """Let go of the thread and the database connections that Django keeps for the request.

    Django's ASGI handler runs sync middleware and views of one request in a thread of its own,
    and keeps that thread, with its database connections, until the response has ended. The
    executor is taken out of asgiref's context; asgiref makes a new one if anybody needs it.
    """
    context = SyncToAsync.thread_sensitive_context.get(None)
    if context is None or getattr(context, "_executor", None) is not None:
        # Nobody's, or that of somebody who gave asgiref the executor, and goes on to use it.
        return
    executor = SyncToAsync.context_to_thread_executor.pop(context, None)
    if executor is not None:
        try:
            await _close_connections(executor)
        finally:
            executor.shutdown(wait=False)


async def _close_connections(executor: Executor) -> None:
    try:
        closing = executor.submit(connections.close_all)
    except RuntimeError:
        # The system has no thread for it, so that there was none that had a connection.
        return
    closed = asyncio.wrap_future(closing)
    await asyncio.wait({closed}, timeout=RELEASE_SECONDS)
    if not closed.done():
        logger.warning("A stream begins before the database connections of its request are closed")
        closed.add_done_callback(_closed_late)
    elif (error := closed.exception()) is not None:
        logger.warning("The database connections of a request were not closed: %s", error)


def _closed_late(closed: asyncio.Future[None]) -> None:
    if not closed.cancelled():
        closed.exception()
