"""``auditship demo``: what a person tries first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "auditship.cli", "demo", *arguments], capture_output=True, text=True, check=False, timeout=110
    )


def test_a_bounded_run_ends_with_a_summary_in_which_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    done = demo("--events", "3001", "--exit", "--dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert {name: summary[name] for name in ("written", "stored", "rejected", "lost", "duplicates")} == {
        "written": 3001,
        "stored": 3001,
        "rejected": 0,
        "lost": 0,
        "duplicates": 0,
    }
    assert summary["events_per_s"] > 0


def test_a_document_that_is_missing_or_one_too_many_is_noticed(tmp_path: Path) -> None:
    assert demo("--events", "300", "--exit", "--dir", str(tmp_path)).returncode == 0
    log = next(tmp_path.glob("logs/web/*.jsonl"))
    lines = log.read_bytes().splitlines(keepends=True)
    state = tmp_path / "state"
    log.write_bytes(b"".join(lines[:-5]))  # five lines that the store has and nobody wrote
    for file in state.iterdir():
        file.unlink()
    done = demo("--events", "300", "--exit", "--dir", str(tmp_path))
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1])["duplicates"] > 0
