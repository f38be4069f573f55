"""Which `send()` and `receive()` are a server's own, with nothing of anybody's around them.

Only these are stepped by hand, which saves a task for each delivery. What a middleware puts around
them may look up context variables, and enter a deadline or a cancel scope in one step to leave it
in another: it runs in tasks, as under Django's own handler. A server's own have none of this.
"""

from __future__ import annotations

from functools import partial
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

MODULES = (
    # hypercorn and daphne give the `get()` of a queue for `receive()`.
    "asyncio.queues",
    "daphne.server",
    "granian._granian",
    "hypercorn.protocol",
    "uvicorn.protocols",
)


def is_servers_own(function: Any) -> bool:
    """Say whether this is the `send()` or `receive()` of a server that is known to be safe."""
    name = _module_of(function.func if type(function) is partial else function)
    return any(name == module or name.startswith(f"{module}.") for module in MODULES)


def _module_of(function: Any) -> str:
    """Return where its code is; not `__module__`, which `functools.wraps()` copies."""
    if type(function) is BuiltinMethodType:
        return type(function.__self__).__module__
    plain = function.__func__ if type(function) is MethodType else function
    return str(plain.__globals__["__name__"]) if type(plain) is FunctionType else ""
