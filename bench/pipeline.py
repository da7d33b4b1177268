"""The whole product on one machine: agent, indexer, embedded store; CPU seconds of both sides together.

``pipeline_events_per_cpu_s`` from lines in a file to durable, searchable documents; ``embedded_events_per_cpu_s`` is the
indexer's side of it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import urllib3
from figures import cpu_s, figure, finish, free_port, log_file, start
from indexing import await_ready

from indexer.enrich import demo_database


def configure(folder: Path, port: int) -> None:
    """The two configuration files, with the demo's city database."""
    city = demo_database.path()
    (folder / "indexer.toml").write_text(
        f'listen = "127.0.0.1:{port}"\n[store]\npath = "store"\n[enrichment]\ncity_database = "{city}"\n'
    )
    (folder / "agent.toml").write_text(
        f'state_dir = "state"\n[indexer]\nurls = ["http://127.0.0.1:{port}"]\n[[watch]]\ngateway = "web"\npaths = ["*.jsonl"]\n'
    )


def main(lines: int) -> None:
    """Ships a file of that many lines into the embedded store."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        configure(folder, port)
        log_file(folder, lines)
        indexer = start("-m", "auditship.cli", "indexer", "--config", str(folder / "indexer.toml"))
        try:
            await_ready(urllib3.PoolManager(), f"http://127.0.0.1:{port}")
            before, began = cpu_s(indexer.pid), time.monotonic()
            agent = finish(start("-m", "auditship.cli", "agent", "--config", str(folder / "agent.toml"), "--once"))
            took, used = time.monotonic() - began, cpu_s(indexer.pid) - before
        finally:
            usage = finish(indexer, stop=True)
        if agent.status:
            raise SystemExit(f"the agent ended with status {agent.status}")
        size = sum(path.stat().st_size for path in (folder / "store").iterdir())
    figure("embedded_events_per_cpu_s", lines / used, "1/s", events=lines, bytes_per_event=round(size / lines))
    figure("indexer_rss_mib", usage.rss_mib, "MiB", store="embedded")
    figure(
        "pipeline_events_per_cpu_s", lines / (used + agent.cpu_s), "1/s", events=lines, wall_events_per_s=round(lines / took)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=200_000)
    main(parser.parse_args().lines)
