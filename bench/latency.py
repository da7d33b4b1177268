"""How long a line takes while little is going on, and what waiting costs.

One line at a time is appended to a watched file. ``ack_p99_ms``: until the agent has its receipt, so until it is durably
stored. ``searchable_p99_ms``: until a search finds it. ``idle_cpu_percent``: of one core, by an agent that watches so many
files, of which ``active`` get a line every second.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import urllib3
from figures import SEED, cpu_s, figure, finish, free_port, start
from indexing import await_ready
from pipeline import configure

from agent.run import Agent
from agent.settings import AgentSettings
from auditship.block import Receipt
from auditship.sample import Sample
from auditship.settings import load
from indexer.settings import IndexerSettings
from indexer.store.contract import Query
from indexer.store.select import open_reader

IDLE = ((1, 0), (100, 0), (10_000, 0), (10_000, 10))
"""Watched files, and how many of them get lines."""
IDLE_S = 20.0
SETTLED_CPU_PERCENT = 5.0
SETTLE_S_MAX = 120.0


def percentile_99(values: list[float]) -> float:
    """The value that one of a hundred exceeds."""
    return statistics.quantiles(values, n=100)[-1]


def append_and_wait(folder: Path, agent: Agent, count: int, found: dict[str, list[float]]) -> None:
    """Appends lines one by one, each after the one before was found; then ends the agent."""
    acknowledged = threading.Event()
    stored = agent.report.stored

    def told(length: int, receipt: Receipt) -> None:
        stored(length, receipt)
        acknowledged.set()

    agent.report.stored = told  # type: ignore[method-assign]
    chance, sample = random.Random(SEED), Sample(SEED)
    with (
        (folder / "web.jsonl").open("ab", buffering=0) as file,
        closing(open_reader(load(IndexerSettings, folder / "indexer.toml"))) as reader,
    ):
        for number in range(count):
            line = sample.line("web", time.time_ns() // 1_000_000)
            acknowledged.clear()
            began = time.perf_counter()
            file.write(line)
            if not acknowledged.wait(30):
                break
            found["ack"].append((time.perf_counter() - began) * 1000)
            while reader.count(Query()) <= number:
                time.sleep(0.001)
            found["searchable"].append((time.perf_counter() - began) * 1000)
            time.sleep(chance.uniform(0.005, 0.08))
    os.kill(os.getpid(), signal.SIGTERM)


def latency(count: int) -> None:
    """The agent in this process, the indexer in another."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        configure(folder, port)
        indexer = start("-m", "auditship.cli", "indexer", "--config", str(folder / "indexer.toml"))
        found: dict[str, list[float]] = {"ack": [], "searchable": []}
        try:
            await_ready(urllib3.PoolManager(), f"http://127.0.0.1:{port}")
            (folder / "web.jsonl").touch()
            agent = Agent(load(AgentSettings, folder / "agent.toml"))
            threading.Thread(target=append_and_wait, args=(folder, agent, count, found), daemon=True).start()
            agent.run()
        finally:
            finish(indexer, stop=True)
    for what, values in found.items():
        figure(
            f"{what}_p99_ms",
            percentile_99(values),
            "ms",
            store="embedded",
            lines=len(values),
            p50_ms=round(statistics.median(values), 1),
        )


def await_settled(pid: int) -> None:
    """Returns when a process has nothing to do any more: when it has shipped what was there."""
    deadline = time.monotonic() + SETTLE_S_MAX
    used = cpu_s(pid) - 100
    while (now := cpu_s(pid)) - used > SETTLED_CPU_PERCENT / 100 * 2 and time.monotonic() < deadline:
        used = now
        time.sleep(2)


def idle(files: int, active: int) -> None:
    """The agent with next to nothing to do."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        configure(folder, port)
        for number in range(files):
            (folder / f"web-{number}.jsonl").write_bytes(b'{"first":"line"}\n')
        receiver = start("bench/receiver.py", str(port))
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=300)
    latency(parser.parse_args().lines)
    for files, active in IDLE:
        idle(files, active)
