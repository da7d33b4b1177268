"""What waiting costs, and how soon waiting is over.

``idle_cpu_percent``: of one core, by an agent that watches so many files, of which ``active`` get a line every second; with
its memory. ``start_up_s``: of the indexer, until it could take a block; of the agent, with so many files that it knows, until
it connects to deliver the record of its own start.
"""

from __future__ import annotations

import socket
import tempfile
import time
from pathlib import Path

import urllib3
from figures import cpu_s, figure, finish, free_port, start
from indexing import await_ready
from pipeline import configure
from shipping import await_listening

IDLE = ((1, 0), (100, 0), (10_000, 0), (10_000, 10))
"""Watched files, and how many of them get lines."""
IDLE_S = 20.0
SETTLED_CPU_PERCENT = 5.0
SETTLE_S_MAX = 60.0
START_S_MAX = 60.0


def await_settled(pid: int) -> None:
    """Returns when a process has nothing to do any more: when it has shipped what was there."""
    deadline = time.monotonic() + SETTLE_S_MAX
    used = cpu_s(pid) - 100
    while (now := cpu_s(pid)) - used > SETTLED_CPU_PERCENT / 100 * 2 and time.monotonic() < deadline:
        used = now
        time.sleep(2)


def agent_start_up_s(folder: Path, port: int) -> float:
    """Starts the agent again, and waits for its first connection."""
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(START_S_MAX)
        began = time.monotonic()
        agent = start("-m", "auditship.cli", "agent", "--config", str(folder / "agent.toml"))
        try:
            server.accept()[0].close()
            return time.monotonic() - began
        finally:
            agent.kill()
            finish(agent)


def idle(files: int, active: int) -> None:
    """The agent with next to nothing to do."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        configure(folder, port)
        for number in range(files):
            (folder / f"web-{number}.jsonl").write_bytes(b'{"first":"line"}\n')
        receiver = start("bench/receiver.py", str(port))
        await_listening(port)
        agent = start("-m", "auditship.cli", "agent", "--config", str(folder / "agent.toml"))
        try:
            await_settled(agent.pid)
            before, began = cpu_s(agent.pid), time.monotonic()
            while time.monotonic() - began < IDLE_S:
                for number in range(active):
                    with (folder / f"web-{number}.jsonl").open("ab", buffering=0) as file:
                        file.write(b'{"another":"line"}\n')
                time.sleep(1)
            used = (cpu_s(agent.pid) - before) / (time.monotonic() - began)
        finally:
            usage = finish(agent, stop=True)
            finish(receiver, stop=True)
        figure("idle_cpu_percent", used * 100, "%", files=files, active=active, rss_mib=round(usage.rss_mib, 1))
        if not active:
            figure("start_up_s", agent_start_up_s(folder, port), "s", of="agent", files=files)


def indexer_start_up() -> None:
    """The indexer on an empty embedded store."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        configure(folder, port)
        began = time.monotonic()
        indexer = start("-m", "auditship.cli", "indexer", "--config", str(folder / "indexer.toml"))
        try:
            await_ready(urllib3.PoolManager(), f"http://127.0.0.1:{port}")
            figure("start_up_s", time.monotonic() - began, "s", of="indexer", store="embedded")
        finally:
            finish(indexer, stop=True)


if __name__ == "__main__":
    indexer_start_up()
    for files, active in IDLE:
        idle(files, active)
