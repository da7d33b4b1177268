"""A gateway of the demo: writes realistic audit lines to a file, at full speed or at a steady pace.

python -m auditship.demo_gateway web logs/web.jsonl --count 1000
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from auditship import clock
from auditship.sample import Sample

WRITE_LINES_MAX = 500
"""Lines in one write at full speed."""


@click.command()
@click.argument("gateway")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=1)
@click.option("--count", type=int, help="That many events at full speed.")
@click.option("--rate", type=float, default=1.0, help="Events per second otherwise.")
def main(gateway: str, path: Path, seed: int, count: int | None, rate: float) -> None:
    """Write a gateway's audit lines to PATH."""
    sample = Sample(seed)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    if count is None:
        while True:
            os.write(file, sample.line(gateway, clock.now_ms()))
            time.sleep(1 / rate)
    while count > 0:
        lines = b"".join(sample.line(gateway, clock.now_ms()) for _ in range(min(count, WRITE_LINES_MAX)))
        written = 0
        while written < len(lines):
            written += os.write(file, lines[written:])
        count -= WRITE_LINES_MAX


if __name__ == "__main__":
    main()
