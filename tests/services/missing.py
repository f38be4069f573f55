"""What happens to a test whose service is not installed."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

# Debian keeps servers where an ordinary user's PATH does not look.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def missing(what: str, package: str) -> NoReturn:
    """Skips the test, or fails it where `EVENTSTREAM_REQUIRE_SERVICES` wants all to be there."""
    reason = f"{what} is missing: apt-get install {package}"
    if os.environ.get("EVENTSTREAM_REQUIRE_SERVICES"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def program(name: str, package: str, *, also_in: str = "") -> str:
    """The path of an installed program; `missing()` otherwise."""
    found = shutil.which(name, path=os.pathsep.join([PATH, also_in]))
    return found or missing(name, package)
