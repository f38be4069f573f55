"""Printing figures, and what processes use according to the kernel."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.services import reaper
from tests.services.service import Service

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def show(subject: str, text: str) -> None:
    print(f"{subject:<9} {text}", flush=True)


def machine() -> str:
    parts = [
        f"{os.cpu_count()} CPUs ({cpu_model()})",
        f"load {os.getloadavg()[0]:.1f} before the start",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("Django", "uvicorn", "uvloop", "psycopg")),
    ]
    return ", ".join(parts)


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def cpu_seconds(service: Service) -> float:
    """User and system time of all processes of a service; the clock has ticks of 10 ms."""
    ticks = 0
    for pid in reaper.processes_of_session(service.pid):
        # "pid (any name) state …", with user and system time as the 12th and 13th after the name
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_SECOND


def spread(seconds: Sequence[float]) -> str:
    """Median, 99th percentile and maximum of durations."""
    found = sorted(seconds)
    p99 = found[min(len(found) - 1, len(found) * 99 // 100)]
    return (
        f"median {statistics.median(found) * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, "
        f"max {found[-1] * 1e3:.1f} ms"
    )
