"""Runs all benchmarks, or those named; ends with 1 if one of them does not count.

At the end comes a table of the figures that have an aim, or are worth comparing.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from tests.benchmarks import (  # noqa: E402 - they need settings
    delivery,
    latency,
    pushpin,
    redis_log,
    replay,
    sends,
    slow,
    storm,
    streams,
    trim,
)
from tests.benchmarks.figures import machine, noted, show, show_table  # noqa: E402

BENCHMARKS = {
    "sends": sends.main,
    "trim": trim.main,
    "streams": streams.main,
    "storm": storm.main,
    "replay": replay.main,
    "latency": latency.main,
    "pushpin": pushpin.main,
    "redis": redis_log.main,
    "delivery": delivery.main,
    "slow": slow.main,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    show("machine", machine())
    status = max([run(name) for name in names])
    if noted:
        print()
        show_table()
    return status


def run(name: str) -> int:
    """0 if it ran to its end; events lost, doubled or out of order raise before a figure shows."""
    try:
        BENCHMARKS[name]()
    except Exception:
        traceback.print_exc()
        show(name, "DOES NOT COUNT: it went wrong, see above")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
