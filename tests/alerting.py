"""Alerting in a folder, for tests: a store that is written here, receivers and ``auditship alerts`` as real processes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

from product import free_port
from sample_entries import entry
from stores import Store

from auditship.clock import now_ms
from indexer.document import Entry
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter

DEADLINE_S = 60.0
TESTS = Path(__file__).parent


def critical(number: int, **changes: Any) -> Entry:
    """A critical event, which is a cause of its own by its organisation, action and actor."""
    base: dict[str, Any] = {
        "time_ms": now_ms(),
        "audit": {"severity": "critical"},
        "organization": {"id": f"org-{number % 40}"},
        "event": {"action": f"secret.read{number % 7}"},
        "user": {"id": f"u-{number}"},
    }
    return entry(number, **{**base, **changes})


class Alerting:
    """A folder with a store, receivers, and one ``auditship alerts``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ports: dict[str, int] = {}
        (home / "indexer.toml").write_text('[store]\npath = "store"\n')
        store = home / "store"
        self.store = Store(lambda: EmbeddedWriter(store, now_ms), EmbeddedReader(store, now_ms), lambda: None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            self.kill(process)

    def configure(self, channels: str, top: str = "") -> None:
        """Writes ``alerts.toml``; ``{name}`` stands for the port of the receiver ``name``."""
        for name in ("live", "dead", "spare"):
            self.ports.setdefault(name, free_port())
        for name, port in self.ports.items():
            channels = channels.replace(f"{{{name}}}", str(port))
        (self.home / "alerts.toml").write_text(f'state_dir = "state"\nretry_interval_max_s = 0.3\n{top}\n{channels}')

    def receive(self, name: str) -> subprocess.Popen[bytes]:
        """Starts a receiver."""
        return self._start(name, str(TESTS / "alert_receiver.py"), str(self.ports[name]), str(self.home / f"{name}.jsonl"))

    def alerts(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts ``auditship alerts``."""
        return self._start("alerts", "-m", "auditship.cli", "alerts", "--config", "alerts.toml", *arguments)

    def started(self) -> subprocess.Popen[bytes]:
        """The same, once it follows."""
        process = self.alerts()
        self.until(lambda: self.follows() or self._ended(process))
        assert process.poll() is None, self.said()
        return process

    def follows(self) -> bool:
        return self.said().count("following") >= 2

    def run(self, *arguments: str) -> tuple[int, str]:
        """One that ends by itself: its status, and what it said."""
        process = self.alerts(*arguments)
        return process.wait(DEADLINE_S), self.said()

    def received(self, name: str = "live") -> list[dict[str, Any]]:
        """What a receiver has got."""
        path = self.home / f"{name}.jsonl"
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        found = []
        for line in lines:
            with suppress(json.JSONDecodeError):  # the last one may be torn
                found.append(json.loads(line))
        return found

    def until(self, is_so: Callable[[], object]) -> None:
        """Returns once something is so."""
        deadline = time.monotonic() + DEADLINE_S
        while not is_so():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def await_told(self, causes: int, name: str = "live") -> None:
        """Returns once a receiver knows so many causes, and nothing waits in the outbox."""
        self.until(lambda: len({each["body"]["cause"] for each in self.received(name)}) == causes and not self.waiting())

    def waiting(self) -> int:
        """How many deliveries wait in the outbox."""
        with closing(sqlite3.connect(self.home / "state" / "outbox.sqlite", timeout=5)) as outbox:
            found: int = outbox.execute("SELECT count(*) FROM delivery WHERE state = 'pending'").fetchone()[0]
            return found

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """kill -9 of a process and its children."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(DEADLINE_S)

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """SIGTERM; the exit status."""
        process.terminate()
        return process.wait(DEADLINE_S)

    def said(self) -> str:
        """What alerting has logged, its end."""
        path = self.home / "alerts.log"
        return path.read_text(errors="replace")[-6000:] if path.exists() else ""

    def _ended(self, process: subprocess.Popen[bytes]) -> bool:
        return process.poll() is not None

    def _start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process
