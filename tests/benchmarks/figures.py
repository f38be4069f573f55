"""Printing figures, and what processes use according to the kernel."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.services import reaper
from tests.services.service import Service

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figure:
    """One line of the table at the end. Without an aim it is there to be read only."""

    what: str
    found: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    peer: str = ""
    """What was measured next to it, interleaved in the same run."""

    @property
    def aim(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:,.4g}"
        return "" if self.at_least is None else f"≥ {self.at_least:,.4g}"

    @property
    def verdict(self) -> str:
        if not self.aim:
            return ""
        is_low = self.at_most is None or self.found <= self.at_most
        is_high = self.at_least is None or self.found >= self.at_least
        return "met" if is_low and is_high else "MISSED"

    def row(self) -> tuple[str, ...]:
        return self.what, f"{self.found:,.4g} {self.unit}", self.aim, self.verdict, self.peer


HEAD = ("what", "found", "aim", "", "peer, in the same run")
noted: list[Figure] = []
"""Of this run, in their order."""


def note(what: str, found: float, unit: str, **options: Any) -> None:
    """Keep a figure for the table at the end; the options are those of `Figure`."""
    noted.append(Figure(what, found, unit, **options))


def show_table() -> None:
    """Print all that was noted, as a table of Markdown."""
    rows = [HEAD, *(figure.row() for figure in noted)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(cells)} |", flush=True)


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
