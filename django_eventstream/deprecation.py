"""How names of django-eventstream 5 say what to use instead.

A deprecated name warns where it is used. Python shows that once for each place, and pytest always.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def warn_deprecated(name: str, instead: str, *, stacklevel: int = 2) -> None:
    """Warn that `name` is going away; a `stacklevel` of 2 names the caller of the caller."""
    text = f"{name} is a name of django-eventstream 5 and will go: {instead}."
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel + 1)


def deprecated(instead: str) -> Callable[[Function], Function]:
    """Make a function warn at each call; its name and its signature stay."""

    def decorate(function: Function) -> Function:
        @wraps(function)
        def warning_first(*arguments: Any, **options: Any) -> Any:
            warn_deprecated(f"{function.__module__}.{function.__name__}()", instead)
            return function(*arguments, **options)

        return cast("Function", warning_first)

    return decorate
