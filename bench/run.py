"""All measurements, one after another: JSON lines on standard output, a table on standard error.

    make bench
    make bench ARGS="shipping indexing"

CPU seconds are user and system time of whole processes. Machines are noisy: compare within one run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MEASUREMENTS = ("shipping", "indexing", "pipeline", "latency", "cluster")


def main(names: list[str]) -> int:
    """Runs each in a process of its own; returns how many could not be run."""
    unknown = set(names) - set(MEASUREMENTS)
    if unknown:
        raise SystemExit(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}")
    failed = 0
    for name in names or MEASUREMENTS:
        print(f"{name}:", file=sys.stderr, flush=True)
        failed += subprocess.run([sys.executable, str(Path(__file__).parent / f"{name}.py")], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
