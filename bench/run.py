"""All measurements, one after another: JSON lines on standard output; messages, and at the end one table, on standard error.

    make bench
    make bench ARGS="shipping indexing"

CPU seconds are user and system time of whole processes. Machines are noisy: compare within one run. A measurement that takes
longer than it may is ended, and told.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import zstandard
from figures import SEED

MEASUREMENTS = {"shipping": 120, "indexing": 300, "pipeline": 90, "latency": 330, "idle": 270, "cluster": 180}
"""How many seconds each may take."""
BY_NAME = {"wide": 400}
"""Likewise, of those that are measured only if they are named."""
ARGUMENTS = {"cluster": ("--configuration", "ours", "--rounds", "1")}
"""The other configurations are what `make bench-elasticsearch` compares ours with."""
LIBRARIES = ("msgspec", "uvicorn", "uvloop", "urllib3", "elasticsearch")


def measure(name: str, seconds_max: float) -> tuple[list[dict[str, Any]], bool]:
    """Runs one in a process of its own, passes its figures on, and returns them; and whether it ended well."""
    command = [sys.executable, str(Path(__file__).parent / f"{name}.py"), *ARGUMENTS.get(name, ())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    timer = threading.Timer(seconds_max, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    figures = []
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith('{"figure"'):  # processes that are measured log to the same place
            print(line, end="", flush=True)
            figures.append(json.loads(line))
    failed = process.wait()
    timer.cancel()
    if failed:
        print(f"  {name} was not measured whole: status {failed}", file=sys.stderr)
    return figures, not failed


def machine() -> Iterable[str]:
    """What the figures were taken on."""
    info = Path("/proc/cpuinfo")
    models = [line.partition(": ")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
    processor = models[0] if models else platform.machine()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield f"{os.cpu_count()} cores of {processor}, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}"
    yield f"auditship {version('auditship')}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    yield ", ".join(f"{name} {version(name)}" for name in LIBRARIES) + f", zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}"
    yield f"{datetime.now(UTC):%Y-%m-%d}, seed {SEED}"


def table(figures: Iterable[dict[str, Any]]) -> Iterable[str]:
    """The figures as Markdown."""
    yield "| figure | value | unit | |"
    yield "|---|---:|---|---|"
    for each in figures:
        more = ", ".join(f"{key} {value}" for key, value in each.items() if key not in {"figure", "value", "unit"})
        yield f"| `{each['figure']}` | {each['value']:,} | {each['unit']} | {more} |"


def main(names: list[str]) -> int:
    """Runs them; returns how many could not be run."""
    known = MEASUREMENTS | BY_NAME
    if unknown := set(names) - set(known):
        raise SystemExit(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    figures: list[dict[str, Any]] = []
    failed = 0
    for name in names or MEASUREMENTS:
        print(f"{name}:", file=sys.stderr, flush=True)
        found, is_whole = measure(name, known[name])
        figures += found
        failed += not is_whole
    print("", *machine(), "", *table(figures), sep="\n", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
