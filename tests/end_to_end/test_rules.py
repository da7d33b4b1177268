"""The detections as an operator runs them: lines in files, agent, indexer, and a process that looks at what arrives."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from product import Product, free_port
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


RULE = """
title: Project read
id: 2f1f6f4a-5f0e-4a60-9e8b-6e5a8f2f9a99
name: project-read
level: medium
logsource: {product: auditship, service: audit}
detection:
  read: {event.action: authentication.login, user.id: u-watched}
  condition: read
"""


def test_what_it_counts_can_be_asked_for_and_rules_are_read_again_unless_they_are_bad(tmp_path: Path) -> None:
    port = free_port()

    def page(path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError as error:
            return str(error)

    with Product(tmp_path) as product:
        (tmp_path / "own").mkdir()
        config = tmp_path / "indexer.toml"
        good = config.read_text() + f'[detections]\ninterval_s = 1\nrules = "own"\nmetrics_listen = "127.0.0.1:{port}"\n'
        config.write_text(good)
        product.start_indexer()
        follower = product.start("rules", "run", "--follow", "--config", "indexer.toml")

        def hang_up(expected: str) -> None:
            said = product.said("rules").count(expected)
            follower.send_signal(signal.SIGHUP)
            until(lambda: product.said("rules").count(expected) > said, lambda: product.said("rules"))

        def await_page(*wanted: str) -> None:
            until(lambda: all(line in page("/metrics") for line in wanted), lambda: page("/metrics") + product.said("rules"))

        await_page("auditship_detections_rules 22.0", "auditship_detections_left_out 0.0")
        assert (page("/healthz"), page("/readyz")) == ("ok\n", "ready\n")
        append(product.logs / "web.jsonl", refused(20, "u-1"))
        product.ship()
        await_page('auditship_detections_hits_total{rule="failed-login-burst-user",severity="critical"} 1.0')
        assert "auditship_detections_failures_total 0.0" in page("/metrics")
        lag = next(line for line in page("/metrics").splitlines() if line.startswith("auditship_detections_lag_seconds "))
        assert 0 <= float(lag.split()[1]) < 20

        (tmp_path / "own/read.yml").write_text(RULE.replace("user.id", "user.shoe_size"))
        hang_up("not reloaded, everything goes on as before")
        assert "no document has a field 'user.shoe_size'" in product.said("rules")
        (tmp_path / "own/read.yml").write_text(RULE)
        config.write_text(good + "colour = 1\n")
        hang_up("not reloaded, everything goes on as before")
        assert "unknown key 'detections.colour'" in product.said("rules")
        assert 'severity="critical"} 1.0' in page("/metrics"), "the same process went on"

        config.write_text(good)
        hang_up("beginning again with them")
        await_page("auditship_detections_rules 23.0")
        append(product.logs / "web.jsonl", refused(1, "u-watched"))
        product.ship()
        until(lambda: "project-read" in {each["rule"]["id"] for each in alerts(product)}, lambda: product.said("rules"))
        assert product.stop(follower) == 0


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
