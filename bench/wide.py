"""Several indexer workers into several Elasticsearch nodes with a replica: what an event costs each side.

``wide_indexer_us_per_event`` and ``wide_elasticsearch_us_per_event`` (all nodes, both copies), for each number of workers. On
one machine they share its cores, so that the rate says little; that the cost of an event does not grow with the workers says
more. Every line is counted in the end: one that is missing, or there twice, is no figure but an error.

    make bench ARGS=wide
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import urllib3
from cluster import node_cpu_s
from figures import cpu_s, figure, finish, free_port, log_file, start
from indexing import await_ready, blocks

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from elasticsearch_node import Cluster, NodeError, Server
from support import set_up

from auditship.block import PATH, BlockHeader
from indexer.enrich import demo_database

BLOCK_BYTES = 256 << 10
SENDERS = 8


class Cost(NamedTuple):
    """What it took to store that many lines: seconds, and CPU seconds of both sides."""

    lines: int
    took_s: float
    indexer_s: float
    nodes_s: float


def configure(folder: Path, server: Server, port: int, workers: int) -> Path:
    """An indexer's configuration, on a cluster with empty data streams."""
    settings = set_up(server, folder, empty=True)
    ca = f'ca_file = "{server.ca}"\n' if server.ca else ""
    config = folder / "indexer.toml"
    config.write_text(
        f'listen = "127.0.0.1:{port}"\nworkers = {workers}\n[store]\nkind = "elasticsearch"\n'
        f'[elasticsearch]\nurls = {json.dumps(list(server.urls))}\n{ca}writer_key_file = "{settings.writer_key_file}"\n'
        f'reader_key_file = "{settings.reader_key_file}"\n[enrichment]\ncity_database = "{demo_database.path()}"\n'
    )
    return config


def family_cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(cpu_s(int(each)) for each in (pid, *children))


def send(url: str, path: Path) -> int:
    """One sender's file, block by block, each until it is taken; how many lines."""
    http, lines = urllib3.PoolManager(), 0
    for header, body in blocks(path, agent=path.stem, block_bytes=BLOCK_BYTES):
        lines += header.lines
        while not _is_taken(http, url, header, body):
            header = replace(header, redelivered=True)  # noqa: PLW2901 - the same block again
            time.sleep(0.5)
    return lines


def _is_taken(http: urllib3.PoolManager, url: str, header: BlockHeader, body: bytes) -> bool:
    """Whether the indexer has the block; if not, it wants it later."""
    headers = header.to_headers() | {"Content-Encoding": "zstd"}
    answer = http.request("POST", url + PATH, body=body, headers=headers, retries=False)
    if answer.status not in {200, 429, 503}:
        raise SystemExit(f"the indexer answered {answer.status}: {answer.data[:300]!r}")
    return answer.status == 200


def parts(folder: Path, lines: int) -> list[Path]:
    """A log's lines, dealt to the senders, a file for each."""
    dealt = log_file(folder, lines).read_bytes().splitlines(keepends=True)
    paths = [folder / f"sender-{at}.jsonl" for at in range(SENDERS)]
    for at, path in enumerate(paths):
        path.write_bytes(b"".join(dealt[at::SENDERS]))
    return paths


def store(server: Server, paths: Sequence[Path], workers: int) -> Cost:
    """Stores every line with that many workers, and counts what is there."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        indexer = start("-m", "auditship.cli", "indexer", "--config", str(configure(folder, server, port, workers)))
        url = f"http://127.0.0.1:{port}"
        try:
            await_ready(urllib3.PoolManager(), url, 60)
            before, nodes, began = family_cpu_s(indexer.pid), node_cpu_s(server), time.monotonic()
            with ThreadPoolExecutor(SENDERS) as pool:
                lines = sum(pool.map(send, [url] * SENDERS, paths))
            took = time.monotonic() - began
            server.request("POST", "/logs-audit.web-30d/_refresh")
            used, nodes = family_cpu_s(indexer.pid) - before, node_cpu_s(server) - nodes
        finally:
            finish(indexer, stop=True)
    stored = server.get("/logs-audit.web-30d/_count")["count"]
    if stored != lines:
        raise SystemExit(f"{lines} lines were sent, {stored} are stored")
    return Cost(lines, took, used, nodes)


def tell(workers: int, nodes: int, cost: Cost) -> None:
    """The figures of a number of workers."""
    more = {"workers": workers, "nodes": nodes, "events": cost.lines}
    figure("wide_indexer_us_per_event", cost.indexer_s / cost.lines * 1e6, "µs", **more)
    per_s = round(cost.lines / cost.took_s)
    figure("wide_elasticsearch_us_per_event", cost.nodes_s / cost.lines * 1e6, "µs", **more, wall_events_per_s=per_s)


def main(lines: int, nodes: int, workers: Sequence[int]) -> None:
    """Measures each number of workers on one cluster, after a run that is not told."""
    with Cluster.start(nodes) as cluster, tempfile.TemporaryDirectory() as folder:
        paths = parts(Path(folder), lines)
        store(cluster.server, paths, workers[0])  # the nodes' compilers have to see our work first
        for number in workers:
            tell(number, nodes, store(cluster.server, paths, number))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    try:
        main(arguments.lines, arguments.nodes, arguments.workers)
    except NodeError as error:
        print(f"not measured: {error}", file=sys.stderr)
