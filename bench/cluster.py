"""What Elasticsearch spends on our documents: ``es_cpu_us_per_doc`` and ``es_bytes_per_doc``, on the tests' real node.

The lines go the whole way through the builder and the writer; the node's CPU is what it says of itself, after a merge.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from figures import START_MS, cpu_s, figure
from indexing import blocks

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import elasticsearch_node
import zstandard
from elasticsearch_node import NodeError, Server
from figures import log_file

from indexer.assemble import builder_of, places_of
from indexer.build import Block
from indexer.decode import decode_block
from indexer.document import Entry
from indexer.enrich import demo_database
from indexer.settings import ElasticsearchSettings, EnrichmentSettings
from indexer.setup import Setup
from indexer.store.elasticsearch import ElasticsearchWriter
from indexer.store.elasticsearch.connection import Connection


def entries_of(path: Path) -> list[list[Entry]]:
    """A file's documents, a list for each block."""
    settings = EnrichmentSettings(city_database=demo_database.path())
    builder = builder_of(settings, places_of(settings), retention="30d")
    made = []
    for header, body in blocks(path):
        block = Block.of(header, sender="bench", now_ms=START_MS)
        made.append([builder.build(block, decoded) for decoded in decode_block(header, zstandard.decompress(body))])
    return made


async def write(settings: ElasticsearchSettings, batches: Sequence[Sequence[Entry]]) -> None:
    """Stores all of them."""
    writer = ElasticsearchWriter(settings)
    try:
        for batch in batches:
            await writer.append(batch, redelivered=False)
    finally:
        await writer.close()


def measure(server: Server, folder: Path, lines: int) -> None:
    """Writes a file's documents; the first tenth warms the node up."""
    settings = ElasticsearchSettings(
        urls=server.urls, writer_key_file=folder / "writer.key", reader_key_file=folder / "reader.key", ca_file=server.ca
    )
    connection = Connection(settings, basic=(server.user, server.password))
    list(Setup(connection).run(settings, classes=(), gateways=()))
    connection.close()
    batches = entries_of(log_file(folder, lines))
    warm = len(batches) // 10 + 1
    asyncio.run(write(settings, batches[:warm]))
    before, own, began = node_cpu_s(server), cpu_s(0), time.monotonic()
    asyncio.run(write(settings, batches[warm:]))
    took, own = time.monotonic() - began, cpu_s(0) - own
    documents = sum(map(len, batches[warm:]))
    server.request("POST", "/logs-audit.*/_refresh")
    used = node_cpu_s(server) - before
    server.request("POST", "/logs-audit.*/_forcemerge?max_num_segments=1", timeout_s=600)
    stored = server.get("/logs-audit.*/_stats/store,docs")["_all"]["primaries"]
    figure(
        "es_cpu_us_per_doc",
        used / documents * 1e6,
        "µs",
        documents=documents,
        wall_docs_per_s=round(documents / took),
        client_us_per_doc=round(own / documents * 1e6, 1),
    )
    figure(
        "es_bytes_per_doc", stored["store"]["size_in_bytes"] / stored["docs"]["count"], "B", documents=stored["docs"]["count"]
    )


def node_cpu_s(server: Server) -> float:
    """CPU seconds that all nodes have used."""
    nodes = server.get("/_nodes/stats/process")["nodes"]
    return sum(float(node["process"]["cpu"]["total_in_millis"]) for node in nodes.values()) / 1000


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=200_000)
    arguments = parser.parse_args()
    try:
        with elasticsearch_node.server() as found, tempfile.TemporaryDirectory() as name:
            measure(found, Path(name), arguments.lines)
    except NodeError as error:
        print(f"not measured: {error}", file=sys.stderr)
