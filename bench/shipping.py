"""The agent alone: ``auditship agent --once`` over a file, into an indexer that discards.

``agent_lines_per_cpu_s`` counts every CPU second of the process, its start included; ``agent_rss_mib`` is its peak.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from pathlib import Path

from figures import figure, finish, free_port, log_file, start


def ship(lines: int, folder: Path, port: int) -> None:
    """Ships a file of that many lines and prints what it took."""
    path = log_file(folder, lines)
    config = folder / "agent.toml"
    config.write_text(
        f'state_dir = "state"\n[indexer]\nurls = ["http://127.0.0.1:{port}"]\n[[watch]]\ngateway = "web"\npaths = ["*.jsonl"]\n'
    )
    began = time.monotonic()
    usage = finish(start("-m", "auditship.cli", "agent", "--config", str(config), "--once"))
    took = time.monotonic() - began
    if usage.status:
        raise SystemExit(f"the agent ended with status {usage.status}")
    size = path.stat().st_size
    figure(
        "agent_lines_per_cpu_s",
        lines / usage.cpu_s,
        "1/s",
        lines=lines,
        bytes_per_line=round(size / lines),
        cpu_s=round(usage.cpu_s, 2),
        wall_lines_per_s=round(lines / took),
    )
    figure("agent_rss_mib", usage.rss_mib, "MiB", lines=lines)


def await_listening(port: int, timeout_s: float = 10) -> None:
    """Returns once somebody listens there."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def main(lines: int) -> None:
    """Starts the receiver, ships."""
    port = free_port()
    receiver = start("bench/receiver.py", str(port))
    try:
        await_listening(port)
        with tempfile.TemporaryDirectory() as name:
            ship(lines, Path(name), port)
    finally:
        finish(receiver, stop=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    main(parser.parse_args().lines)
