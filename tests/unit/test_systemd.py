"""The units that are shipped: they say what is installed, need no root, and are closed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.settings import AgentSettings

UNITS = sorted((Path(__file__).parents[2] / "systemd").glob("*.service"))
COMMANDS = {
    "agent": "agent --config /etc/auditship/agent.toml",
    "alerts": "alerts --config /etc/auditship/alerts.toml",
    "indexer": "indexer --config /etc/auditship/indexer.toml",
    "rules": "rules run --follow --config /etc/auditship/indexer.toml",
}
EXPOSURE_MAX = 20
"""Tenths, of ten: systemd's own judgement; a service without any restriction has 9.6."""


def values(unit: Path) -> dict[str, str]:
    lines = [line.partition("=") for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return {name: value for name, _, value in lines}


def test_there_is_one_for_each_program() -> None:
    assert [unit.stem for unit in UNITS] == [f"auditship-{name}" for name in COMMANDS]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_it_runs_without_privileges_reloads_and_comes_back(unit: Path) -> None:
    found = values(unit)
    name = unit.stem.removeprefix("auditship-")
    assert found["User"] == "auditship"
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == ""
    assert found["NoNewPrivileges"] == "yes"
    assert found["ProtectSystem"] == "strict"
    assert found["ExecStart"].endswith(f"/auditship {COMMANDS[name]}")
    assert "-HUP" in found["ExecReload"]
    assert found["Restart"] == "always"
    assert found["StartLimitIntervalSec"] == "0", "else it comes back five times in ten seconds, and then never"
    assert found["StateDirectory"] == "auditship"


@pytest.mark.program("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_understands_it_and_finds_it_closed(unit: Path) -> None:
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout[-500:] + judged.stderr
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    complaints = [line for line in verified.stderr.splitlines() if "is not executable" not in line]
    assert not complaints


def test_the_agent_may_have_a_thread_for_each_directory_and_shipper() -> None:
    unit = next(each for each in UNITS if each.stem == "auditship-agent")
    defaults = AgentSettings.model_fields
    threads = defaults["directories_watched_max"].default + 32 + 16
    assert int(values(unit)["TasksMax"]) >= threads
