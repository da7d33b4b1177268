"""A gateway with a time-table: appends lines when they are due, whatever has become of those before (an open loop).

    python bench/append.py FILE RATE SECONDS NOTES

Each line is one ``write()``. Notes: for every line the monotonic time of its ``write()``, then for every line when it was due,
as doubles of this machine. The lines' own timestamps are a millisecond apart, so that the newest one tells how far a store is.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from array import array
from pathlib import Path

from figures import SEED, START_MS

from auditship.sample import Sample

SPIN_S = 0.00002
"""So close to its time a line is waited for awake: sleeping is no more exact than that."""


def lines_of(count: int) -> list[bytes]:
    """The lines of a run: the same for the same number."""
    sample = Sample(SEED)
    return [sample.line("web", START_MS + at) for at in range(count)]


def append(path: Path, lines: list[bytes], rate: float) -> tuple[array[float], array[float]]:
    """Appends the lines on time; returns when each was written and when it was due."""
    written, due = array("d"), array("d")
    gc.freeze()
    with path.open("ab", buffering=0) as file:
        number, clock = file.fileno(), time.monotonic
        begin = clock() + 0.1
        for at, line in enumerate(lines):
            when = begin + at / rate
            while (left := when - clock()) > 0:
                if left > SPIN_S:
                    time.sleep(left - SPIN_S)
            due.append(when)
            written.append(clock())
            os.write(number, line)
    return written, due


if __name__ == "__main__":
    log, per_s, seconds, notes = sys.argv[1:]
    with Path(notes).open("wb") as out:
        for times in append(Path(log), lines_of(int(float(per_s) * float(seconds))), float(per_s)):
            times.tofile(out)
