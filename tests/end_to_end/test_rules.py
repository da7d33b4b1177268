"""The detections as an operator runs them: lines in files, agent, indexer, and a process that looks at what arrives."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from product import Product
from shipping import append, until


def refused(count: int, actor: str) -> list[bytes]:
    """Lines of refused logins, one a second until now."""
    now = datetime.now(UTC)
    lines = []
    for n in range(count):
        line = {
            "timestamp": (now - timedelta(seconds=count - n)).isoformat(timespec="milliseconds"),
            "organization": {"id": "org-1"},
            "actor": {"type": "user", "id": actor},
            "action": "authentication.login",
            "resource": {"type": "organization"},
            "status": "failure",
            "ip": "203.0.113.9",
        }
        lines.append(json.dumps(line).encode() + b"\n")
    return lines


def alerts(product: Product) -> list[dict[str, Any]]:
    return product.export("--dataset", "alert")


def test_alerts_are_stored_while_events_arrive_and_once(tmp_path: Path) -> None:
    with Product(tmp_path) as product:
        config = tmp_path / "indexer.toml"
        config.write_text(config.read_text() + "[detections]\ninterval_s = 1\n")
        product.start_indexer()
        follower = product.start("rules", "run", "--follow", "--config", "indexer.toml")
        until((tmp_path / "store/detections.cursor").exists, lambda: product.said("rules"))
        second = product.start("rules", "run", "--follow", "--config", "indexer.toml")
        assert second.wait(60) == 1
        assert "another process runs the detections" in product.said("rules")
        append(product.logs / "web.jsonl", refused(20, "u-1"))
        product.ship()
        until(lambda: len(alerts(product)) == 2, lambda: product.said("rules"))
        product.kill(follower)
        append(product.logs / "web.jsonl", refused(20, "u-2"))
        product.ship()
        follower = product.start("rules", "run", "--follow", "--config", "indexer.toml")
        until(lambda: len(alerts(product)) == 3, lambda: product.said("rules"))
        assert product.stop(follower) == 0
        found = alerts(product)
    assert sorted(each["event"]["reason"].split(" in 1 h")[0] for each in found) == [
        "20 failed logins from 203.0.113.9",
        "20 failed logins of u-1",
        "20 failed logins of u-2",
    ]


def test_what_the_rules_would_have_found_is_told_and_not_stored(tmp_path: Path) -> None:
    with Product(tmp_path) as product:
        product.start_indexer()
        append(product.logs / "web.jsonl", refused(25, "u-1"))
        product.ship()
        command = [sys.executable, "-m", "auditship.cli", "rules", "run", "--since", "24h", "--config", "indexer.toml"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=60)
        rules = {json.loads(line)["rule"]["id"] for line in done.stdout.splitlines()}
        assert rules == {"failed-login-burst-address", "failed-login-burst-user"}
        assert alerts(product) == []
        subprocess.run([*command, "--store"], cwd=tmp_path, capture_output=True, check=True, timeout=60)
        subprocess.run([*command, "--store"], cwd=tmp_path, capture_output=True, check=True, timeout=60)
        assert len(alerts(product)) == 2
