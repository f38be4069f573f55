"""Executing scripts in Redis, each in a run of the server that is known."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from django_eventstream.redis_server import (
    ANSWERED_ERRORS,
    UNKNOWN_SCRIPT_ERRORS,
    RedisServer,
)
from django_eventstream.storage.redis_scripts import UNRECOGNISED, Script, Scripts

logger = logging.getLogger(__name__)

RUNS = 5
"""A server that was started again so often while it was asked once is left to come to rest."""


class ReadyServer:
    """A server, and all that is needed for asking it."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.client = server.make_client()
        self.scripts = Scripts()
        self.log_id = f"redis:{server.news_channel}"

    def key(self, name: str) -> str:
        return f"{self.server.prefix}:{name}"

    def stream(self, channel: str) -> str:
        return self.key(f"log:{channel}")

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Execute a script, in a run of the server that is recognised."""
        for _ in range(RUNS):
            try:
                return self._evaluate(script, keys, arguments)
            except ANSWERED_ERRORS as error:
                if not _is_unrecognised(error):
                    raise
            self._recognise()
        raise ConnectionError("it is started again and again")

    def _evaluate(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        keys = [self.key("ids"), self.key("old"), self.key("run"), *keys]
        try:
            return self.client.evalsha(script.sha, len(keys), *keys, *arguments)
        except UNKNOWN_SCRIPT_ERRORS:
            return self.client.eval(script.text, len(keys), *keys, *arguments)

    def _recognise(self) -> None:
        """Find out whether Redis may have lost something when it ended, and begin a new epoch.

        If it is started again meanwhile, the answers were of another run, and nothing is done.
        """
        info = self.client.info()
        arguments = [self.server.news_channel, info.get("run_id", ""), int(self._is_durable(info))]
        try:
            has_begun = self._evaluate(self.scripts.recognise, [], arguments)
        except ANSWERED_ERRORS as error:
            if not _is_unrecognised(error):
                raise
            return
        if has_begun:
            logger.warning(
                "Redis was started again, and does not promise that it lost nothing (appendonly "
                "yes, appendfsync always): a new epoch of the event log has begun"
            )

    def _is_durable(self, info: dict[str, Any]) -> bool:
        """Say whether the server has all that it ever acknowledged."""
        was_replica = set(str(info.get("master_replid2", "0"))) != {"0"}
        try:
            policy = self.client.config_get("*appendfsync*")
        except ANSWERED_ERRORS:  # not for everybody
            return False
        # While it writes its file anew, Redis waits for no disk if it is told so.
        is_always = policy.get("appendfsync") == "always"
        waits = is_always and policy.get("no-appendfsync-on-rewrite") == "no"
        return bool(info.get("aof_enabled")) and waits and not was_replica


def _is_unrecognised(error: Exception) -> bool:
    return str(error).startswith(UNRECOGNISED.split()[0])
