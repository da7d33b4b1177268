"""The real agent, with every state-changing system call in turn failing, or killing it: ``make faults-syscalls``.

For each call on the agent's state and on its log files, and for each time it is made: it fails with EIO, with ENOSPC, or the
agent dies right there (strace's fault injection). Then the agent is run again without a fault, and it is demanded: every line
arrived, each under one identity, and what was sent twice was marked so the second time. Needs strace.

Ends with one line of JSON, ``{"figure": "syscalls", "points": N, ...}``; the status is 0 only if all held and some fault fired.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from receiver import Receiver
from shipping import lines

CALLS = ("openat", "write", "fsync", "rename,renameat,renameat2", "mkdir,mkdirat", "flock", "preadv,pread64,preadv2", "close")
EFFECTS = ("error=EIO", "error=ENOSPC", "signal=SIGKILL")
TIMES_MAX = 40
TIMEOUT_S = 60
FILES = {"web": lines(0, 60), "cli": lines(1000, 60)}


class Point:
    """One fault: which call, the how-manieth time, and what happens to it."""

    def __init__(self, call: str, time: int, effect: str) -> None:
        self.call, self.time, self.effect = call, time, effect

    def __str__(self) -> str:
        return f"{self.call.partition(',')[0]} #{self.time} {self.effect}"


def run(point: Point) -> tuple[bool, str]:
    """Whether the fault fired, and what did not hold."""
    with tempfile.TemporaryDirectory() as name, Receiver() as receiver:
        home = Path(name)
        logs = home / "logs"
        logs.mkdir()
        for gateway, content in FILES.items():
            (logs / f"{gateway}.jsonl").write_bytes(b"".join(content))
        watches = "".join(f'[[watch]]\ngateway = "{each}"\npaths = ["logs/{each}.jsonl"]\n' for each in FILES)
        limits = (
            "block_bytes_max = 4096\nwindow_bytes = 65536\nflush_interval_s = 0.01\ngive_up_s = 2\nrefused_interval_s = 0.1\n"
        )
        indexer = f'[indexer]\nurls = ["http://127.0.0.1:{receiver.port}"]\n'
        (home / "agent.toml").write_text(f'state_dir = "state"\n{limits}{indexer}{watches}')
        agent = [sys.executable, "-m", "auditship.cli", "agent", "--config", "agent.toml", "--once"]
        state = home / "state"
        watched = [state, *(state / each for each in ("lock", "agent-id.new", "checkpoint.new", "checkpoint", "agent-id"))]
        watched += [logs / f"{gateway}.jsonl" for gateway in FILES]
        paths = [option for path in watched for option in ("-P", str(path))]
        trace = home / "trace"
        strace = ["strace", "-f", "-qq", "-o", str(trace), *paths, "-e", f"trace={point.call}"]
        inject = ["-e", f"inject={point.call}:{point.effect}:when={point.time}"]
        subprocess.run([*strace, *inject, *agent], cwd=home, capture_output=True, check=False, timeout=TIMEOUT_S)
        text = trace.read_text(errors="replace") if trace.exists() else ""
        fired = "(INJECTED)" in text or (point.effect == "signal=SIGKILL" and "killed by SIGKILL" in text)
        last = subprocess.run(agent, cwd=home, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        if last.returncode:
            return fired, f"the run without a fault ended with {last.returncode}: {last.stderr[-500:]}"
        return fired, wrong(receiver)


def wrong(receiver: Receiver) -> str:
    """What did not hold of what arrived."""
    places: dict[bytes, set[tuple[str, int]]] = {}
    sent: Counter[tuple[str, int]] = Counter()
    for header, data in receiver.taken:
        at = header.offset
        sent[header.stream, at] += 1
        if sent[header.stream, at] > 1 and not header.redelivered:
            return f"the block at {at} came twice and was not marked"
        for line in data.splitlines(keepends=True):
            places.setdefault(line, set()).add((header.stream, at))
            at += len(line)
    missing = [line for content in FILES.values() for line in content if line not in places]
    if missing:
        return f"{len(missing)} lines did not arrive"
    doubled = [line for line, found in places.items() if len(found) > 1]
    return f"{len(doubled)} lines came under two identities" if doubled else ""


def main() -> int:
    """Goes through all of them, or every so-manieth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth point, beginning at a random one")
    every = parser.parse_args().every
    number = random.SystemRandom().randrange(every)
    if not shutil.which("strace"):
        print("not run: strace is not here", file=sys.stderr)
        return 0
    fired: Counter[str] = Counter()
    ends: dict[str, int] = {}
    """How often each call is made, once that is known."""
    failed = 0
    for effect in EFFECTS:
        for call in CALLS:
            for time in range(1, TIMES_MAX + 1):
                point = Point(call, time, effect)
                number += 1
                if number % every and time > 1:
                    if time > ends.get(call, TIMES_MAX):
                        break
                    continue
                has_fired, problem = run(point)
                if problem:
                    failed += 1
                    print(f"FAILED  {point}: {problem}", file=sys.stderr, flush=True)
                if not has_fired:
                    ends[call] = time
                    break
                fired[f"{call.partition(',')[0]} {effect}"] += 1
            name = call.partition(",")[0]
            print(f"{name:10} {effect:16} {fired[f'{name} {effect}']} points", file=sys.stderr, flush=True)
    print(json.dumps({"figure": "syscalls", "points": fired.total(), "failed": failed, "fired": dict(fired)}))
    return 1 if failed or not fired else 0


if __name__ == "__main__":
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.exit(main())
