"""Processes whose clock is wrong, for real: Debian's libfaketime is loaded into them."""

from __future__ import annotations

from pathlib import Path

from tests.services.missing import missing


def clock_ahead(hours: int) -> dict[str, str]:
    """The environment of a process whose clock is so many hours ahead."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        missing("libfaketime", "faketime")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME": f"+{hours}h",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
