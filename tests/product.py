"""The whole product in a folder, for tests: real processes, real files, configuration as an operator writes it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

DEADLINE_S = 60.0


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Product:
    """One indexer and one agent, their configuration, logs and store in one folder.

    Args:
        home: an empty folder.
        store: the ``[store]`` and ``[elasticsearch]`` tables of the indexer's configuration.
        agent: more of ``agent.toml``, before its first table.
    """

    def __init__(self, home: Path, *, store: str = '[store]\npath = "store"\n', agent: str = "") -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.logs = home / "logs"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.logs.mkdir()
        (home / "indexer.toml").write_text(f'listen = "127.0.0.1:{self.port}"\n{store}')
        watches = "".join(
            f'[[watch]]\ngateway = "{gateway}"\npaths = ["logs/{gateway}*.jsonl*"]\n' for gateway in ("web", "cli", "api")
        )
        (home / "agent.toml").write_text(
            f'state_dir = "state"\nscan_interval_s = 0.2\n{agent}\n[indexer]\nurls = ["{self.url}"]\n{watches}'
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                self.kill(process)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Starts one of our commands in the folder; its messages go to ``NAME.log`` there."""
        with (self.home / f"{arguments[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "auditship.cli", *arguments],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,
            )
        self.processes.append(process)
        return process

    def start_indexer(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts the indexer and returns once it could take a block."""
        process = self.start("indexer", "--config", "indexer.toml", *arguments)
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    return process
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, self.said("indexer")
                assert time.monotonic() < deadline, self.said("indexer")
                time.sleep(0.05)

    def start_agent(self) -> subprocess.Popen[bytes]:
        """Starts the agent, which goes on until it is stopped."""
        return self.start("agent", "--config", "agent.toml")

    def ship(self, **options: Any) -> None:
        """Ships what is there: ``auditship agent --once``."""
        process = self.start("agent", "--config", "agent.toml", "--once", **options)
        assert process.wait(DEADLINE_S) == 0, self.said("agent")

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """SIGTERM; returns the exit status."""
        process.terminate()
        return process.wait(DEADLINE_S)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """kill -9 of a process and its children."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(DEADLINE_S)

    def export(self, *arguments: str) -> list[dict[str, Any]]:
        """All documents, as ``auditship export`` gives them."""
        command = [sys.executable, "-m", "auditship.cli", "export", "--config", "indexer.toml", "--format", "ndjson"]
        done = subprocess.run(
            [*command, "--out", "-", *arguments], cwd=self.home, capture_output=True, check=False, timeout=DEADLINE_S
        )
        assert done.returncode == 0, done.stderr.decode()
        return [json.loads(line) for line in done.stdout.splitlines()]

    def await_stored(self, count: int) -> list[dict[str, Any]]:
        """All documents, once there are that many."""
        deadline = time.monotonic() + DEADLINE_S
        while len(found := self.export()) < count:
            assert time.monotonic() < deadline, (len(found), count, self.said("agent"), self.said("indexer"))
            time.sleep(0.1)
        return found

    def said(self, command: str) -> str:
        """What a command has logged so far, its end."""
        path = self.home / f"{command}.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""
