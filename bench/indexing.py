"""The indexer alone: blocks made beforehand, posted one after another to the real server.

Into a store that discards: ``indexer_events_per_cpu_s``, ``indexer_rss_mib``; with all enrichment, without telling unusual
locations, and without any location, in turn, so that it can be seen what these cost. Into the embedded store:
``embedded_events_per_cpu_s``, durable and deduplicated. Each is the median of some rounds, with a new server in each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import urllib3
import zstandard
from figures import cpu_s, figure, finish, free_port, log_file, start
from stream import Stream

from auditship.block import PATH, BlockHeader
from indexer.enrich import demo_database

BLOCK_BYTES = 1 << 20
ENRICHMENTS = {
    "all": 'city_database = "{city}"',
    "without unusual locations": 'city_database = "{city}"\nunusual_location = false',
    "without locations": "",
}


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


class Round(NamedTuple):
    """What a server used for so many lines; starting it does not count."""

    lines: int
    cpu_s: float
    took_s: float
    rss_mib: float

    @property
    def per_cpu_s(self) -> float:
        """Lines for each CPU second."""
        return self.lines / self.cpu_s


def measure(path: Path, *, discard: bool, enrichment: str) -> Round:
    """Posts a file's blocks to a new server; ``enrichment``: that section of its configuration."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        config = folder / "indexer.toml"
        config.write_text(f'listen = "127.0.0.1:{port}"\n[store]\npath = "store"\n[enrichment]\n{enrichment}\n')
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
    return Round(lines, used, took, usage.rss_mib)


def tell(rounds: Sequence[Round], *, discard: bool, enrichment: str) -> None:
    """The figures of some rounds."""
    values = sorted(each.per_cpu_s for each in rounds)
    figure(
        "indexer_events_per_cpu_s" if discard else "embedded_events_per_cpu_s",
        statistics.median(values),
        "1/s",
        events=rounds[0].lines,
        enrichment=enrichment,
        rounds=len(rounds),
        least=round(values[0]),
        most=round(values[-1]),
        wall_events_per_s=round(statistics.median(each.lines / each.took_s for each in rounds)),
    )
    rss_mib = max(each.rss_mib for each in rounds)
    figure("indexer_rss_mib", rss_mib, "MiB", store="discard" if discard else "embedded", enrichment=enrichment)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--embedded", action="store_true", help="into the embedded store")
    parser.add_argument("--city-database", default=str(demo_database.path()))
    arguments = parser.parse_args()
    names = ["all"] if arguments.embedded else list(ENRICHMENTS)
    found: dict[str, list[Round]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        log, discard = log_file(Path(folder), arguments.lines), not arguments.embedded
        for _ in range(arguments.rounds):
            for name in names:
                section = ENRICHMENTS[name].format(city=arguments.city_database)
                found[name].append(measure(log, discard=discard, enrichment=section))
    for name in names:
        tell(found[name], discard=discard, enrichment=name)
