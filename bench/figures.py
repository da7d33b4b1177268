"""What every measurement here shares: printing a figure, timing a process, making lines once."""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from auditship.sample import Sample

SEED = 20261123
START_MS = 1_795_392_000_000
MIB = 1 << 20


class Usage(NamedTuple):
    """What a finished process has used."""

    cpu_s: float
    rss_mib: float
    status: int


def figure(name: str, value: float, unit: str, **more: object) -> dict[str, object]:
    """One figure: JSON on standard output, a line for people on standard error."""
    shown = round(value) if value >= 1000 else round(value, 3)
    result: dict[str, object] = {"figure": name, "value": shown, "unit": unit, **more}
    print(json.dumps(result), flush=True)
    context = ", ".join(f"{key} {each}" for key, each in more.items())
    print(f"  {name:<32}{shown:>14,} {unit:<10}{context}", file=sys.stderr, flush=True)
    return result


def percentile_99(values: Sequence[float]) -> float:
    """The value that one of a hundred exceeds."""
    return statistics.quantiles(values, n=100)[-1]


def start(*command: str, **options: object) -> subprocess.Popen[bytes]:
    """Starts ``python …`` of this environment."""
    return subprocess.Popen([sys.executable, *command], **options)  # type: ignore[call-overload, no-any-return]


def finish(process: subprocess.Popen[bytes], *, stop: bool = False, timeout_s: float = 600) -> Usage:
    """Waits for a process (asks it to end first, with ``stop``) and returns what it used, its own children included."""
    if stop:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, process.returncode)
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.01)


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, that a live process has used; 0 is this one."""
    fields = Path(f"/proc/{pid or os.getpid()}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def log_file(folder: Path, lines: int) -> Path:
    """A web gateway's log of that many lines, the same for the same number; kept for the next measurement."""
    kept = Path(tempfile.gettempdir()) / f"auditship-bench-{os.getuid()}"
    kept.mkdir(mode=0o700, exist_ok=True)
    path = kept / f"web-{SEED}-{lines}.jsonl"
    if not path.exists():
        print(f"making {lines:,} lines", file=sys.stderr)
        sample = Sample(SEED)
        beside = path.with_suffix(".partial")
        with beside.open("wb", buffering=MIB) as file:
            for at in range(lines):
                file.write(sample.line("web", START_MS + at))
        beside.rename(path)
    target = folder / "web.jsonl"
    target.symlink_to(path)
    return target
