"""The indexer alone: blocks made beforehand, posted one after another to the real server.

Into a store that discards: ``indexer_events_per_cpu_s``, ``indexer_rss_mib``. Into the embedded store:
``embedded_events_per_cpu_s``, durable and deduplicated.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import urllib3
import zstandard
from figures import cpu_s, figure, finish, free_port, log_file, start
from stream import Stream

from auditship.block import PATH, BlockHeader
from indexer.enrich import demo_database

BLOCK_BYTES = 1 << 20


def blocks(path: Path, *, agent: str = "bench", block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[BlockHeader, bytes]]:
    """A file as the agent would send it."""
    compressor, stream = zstandard.ZstdCompressor(level=1), Stream(agent, "web")
    with path.open("rb") as file:
        while data := file.read(block_bytes):
            data += file.readline()
            yield stream.block(data), compressor.compress(data)


def await_ready(http: urllib3.PoolManager, url: str, timeout_s: float = 30) -> None:
    """Returns once the server at the address could take a block."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if http.request("GET", f"{url}/readyz", retries=False).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit("the indexer did not start")
        time.sleep(0.05)


def measure(path: Path, *, discard: bool, city: str | None) -> None:
    """Posts a file's blocks and prints what the server used for them; starting it does not count."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        config = folder / "indexer.toml"
        enrichment = f'[enrichment]\ncity_database = "{city}"\n' if city else ""
        config.write_text(f'listen = "127.0.0.1:{port}"\n[store]\npath = "store"\n{enrichment}')
        command = (
            ["bench/discard.py", str(port), str(config)]
            if discard
            else ["-m", "auditship.cli", "indexer", "--config", str(config)]
        )
        process = start(*command)
        url, http = f"http://127.0.0.1:{port}", urllib3.PoolManager()
        try:
            await_ready(http, url)
            prepared = list(blocks(path))
            before, began, lines = cpu_s(process.pid), time.monotonic(), 0
            for header, body in prepared:
                headers = header.to_headers() | {"Content-Encoding": "zstd"}
                answer = http.request("POST", url + PATH, body=body, headers=headers, retries=False)
                if answer.status != 200:
                    raise SystemExit(f"the indexer answered {answer.status}: {answer.data[:300]!r}")
                lines += header.lines
            used, took = cpu_s(process.pid) - before, time.monotonic() - began
        finally:
            usage = finish(process, stop=True)
        figure(
            "indexer_events_per_cpu_s" if discard else "embedded_events_per_cpu_s",
            lines / used,
            "1/s",
            events=lines,
            cpu_s=round(used, 2),
            wall_events_per_s=round(lines / took),
        )
        figure("indexer_rss_mib", usage.rss_mib, "MiB", store="discard" if discard else "embedded")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=300_000)
    parser.add_argument("--embedded", action="store_true", help="into the embedded store")
    parser.add_argument("--city-database", default=str(demo_database.path()))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(log_file(Path(folder), arguments.lines), discard=not arguments.embedded, city=arguments.city_database)
