"""A slice of the harnesses, with seeds that stay and fresh ones: `make faults`, `make faults-syscalls` run them at length."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHAOS = Path(__file__).parents[1] / "chaos"
KEPT_SEEDS = (11, 22, 33, 44)


def harness(program: str, *arguments: str) -> dict[str, Any]:
    """Runs one; what it says goes into the test's output, its seeds among it."""
    done = subprocess.run([sys.executable, CHAOS / program, *arguments], capture_output=True, text=True, check=False)
    print(done.stderr, done.stdout)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert sum(figures["fired"].values()) > 0
    return figures


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_processes_under_random_faults_lose_and_double_nothing() -> None:
    figures = harness("run.py", "--seeds", "6", "--seed", *map(str, KEPT_SEEDS))
    assert (figures["seeds"], figures["lost"], figures["doubled"]) == (10, 0, 0)
    assert figures["written"] > 10_000


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.elasticsearch
def test_they_lose_and_double_nothing_on_elasticsearch_either() -> None:
    figures = harness("run.py", "--elasticsearch", "--seeds", "1", "--seed", *map(str, KEPT_SEEDS[:2]))
    assert (figures["seeds"], figures["lost"], figures["doubled"]) == (3, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.program("strace")
def test_no_failing_system_call_loses_or_doubles_anything() -> None:
    assert harness("syscalls.py", "--every", "6")["points"] >= 16
