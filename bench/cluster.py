"""What Elasticsearch spends on our documents: ``es_cpu_us_per_doc`` and ``es_bytes_per_doc``, on the tests' real node.

The lines go the whole way through the builder and the writer, into a data stream of each configuration in turn; the node's CPU
is what it says of itself, up to the refresh, the bytes are those after a merge. A table for people is on standard error.

The node compiles and collects as Elastic ships it, not as the tests' nodes do, and what its compiler uses is told beside the
figure, not within it: it ends, and a document does not bring it. That it can be told apart needs a node on this machine.

    make bench-elasticsearch
    make bench-elasticsearch ARGS="--lines 300000 --configuration ours"
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import sys
import tempfile
import time
import urllib.error
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from figures import START_MS, cpu_s, figure
from indexing import blocks

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import elasticsearch_node
import orjson
import zstandard
from elasticsearch_node import NodeError, Server
from figures import log_file
from msgspec import structs
from support import set_up

from index_templates import load
from indexer.assemble import builder_of, places_of
from indexer.build import Block
from indexer.decode import decode_block
from indexer.document import Entry
from indexer.enrich import demo_database
from indexer.settings import ElasticsearchSettings, EnrichmentSettings
from indexer.store.elasticsearch import ElasticsearchWriter

CONFIGURATIONS = (
    "default dynamic mapping",
    "ours, default codec",
    "ours",
    "ours, every keyword in lower case",
    "ours as logsdb, stored source",
    "ours as logsdb, synthetic source",
    "kept, nothing indexed but the times",
    "default dynamic mapping, short documents",
    "ours, short documents",
    "kept, nothing indexed but the times, short documents",
)
SHORT = ", short documents"
"""Documents without what repeats the line, to compare with figures that were taken with documents of 1.2 KB."""
STREAM = "logs-audit.web-30d"
COMPILER = re.compile("C[12] CompilerThre.*")
"""The names of Java's compiler threads, as the kernel shows them."""


class Cost(NamedTuple):
    """What a document of a configuration costs: the cluster's CPU and disk, our own CPU; how many were measured, how fast."""

    cpu_us: float
    compiler_us: float
    """Beside it."""
    stored_bytes: float
    documents: int
    per_s: int
    client_us: float


def entries_of(path: Path) -> list[list[Entry]]:
    """A file's documents, a list for each block."""
    settings = EnrichmentSettings(city_database=demo_database.path())
    builder = builder_of(settings, places_of(settings), retention="30d")
    made = []
    for header, body in blocks(path):
        block = Block.of(header, sender="bench", now_ms=START_MS)
        made.append([builder.build(block, decoded) for decoded in decode_block(header, zstandard.decompress(body))])
    return made


def shortened(batches: list[list[Entry]]) -> list[list[Entry]]:
    """The same documents without the line itself, and without what stands in them twice or in all of them."""

    def short(entry: Entry) -> Entry:
        document = orjson.loads(entry.body)
        for name in ("related", "agent", "host", "ecs"):
            del document[name]
        for group, name in (("event", "original"), ("event", "hash"), ("user_agent", "original")):
            document[group].pop(name)
        return structs.replace(entry, body=orjson.dumps(document))

    return [[short(entry) for entry in batch] for batch in batches]


async def write(settings: ElasticsearchSettings, batches: Sequence[Sequence[Entry]]) -> None:
    """Stores all of them."""
    writer = ElasticsearchWriter(settings)
    try:
        for batch in batches:
            await writer.append(batch, redelivered=False)
    finally:
        await writer.close()


def template(name: str) -> dict[str, Any] | None:
    """The index template of a configuration; none: the one that is installed."""
    mappings = load("component_templates")["audit-mappings"]["template"]["mappings"]
    settings = load("component_templates")["audit-settings"]["template"]["settings"]["index"]
    match name.removesuffix(SHORT):
        case "ours":
            return None
        case "default dynamic mapping":  # what a first document makes where nobody has installed anything
            body: dict[str, Any] = {"settings": {"index": {"mode": "standard"}}}
        case "ours, default codec":
            body = {"mappings": mappings, "settings": {"index": settings | {"codec": "default"}}}
        case "ours as logsdb, stored source":
            logsdb = {"mode": "logsdb", "mapping": settings["mapping"] | {"source": {"mode": "stored"}}}
            body = {"mappings": mappings, "settings": {"index": settings | logsdb}}
        case "ours, every keyword in lower case":  # as Sigma has it everywhere
            body = {"mappings": _mapped(mappings, _lower), "settings": {"index": settings}}
        case "ours as logsdb, synthetic source":  # needs a paid licence on a full server
            logsdb = {"mode": "logsdb", "mapping": settings["mapping"] | {"source": {"mode": "synthetic"}}}
            body = {"mappings": mappings, "settings": {"index": settings | logsdb}}
        case "kept, nothing indexed but the times":  # what no mapping could be cheaper than
            body = {"mappings": _mapped(mappings, _unindexed), "settings": {"index": settings}}
        case _:
            raise SystemExit(f"no such configuration: {name}; there are {', '.join(CONFIGURATIONS)}")
    return {"index_patterns": ["logs-audit.web-*"], "priority": 600, "data_stream": {}, "template": body}


def _mapped(mappings: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """The same fields, each changed."""
    properties = {
        name: _mapped(each, change) if "properties" in each else change(each) for name, each in mappings["properties"].items()
    }
    return mappings | {"properties": properties}


def _lower(field: dict[str, Any]) -> dict[str, Any]:
    is_found = field["type"] == "keyword" and field.get("index", True)
    return field | {"normalizer": "lowercase"} if is_found else field


def _unindexed(field: dict[str, Any]) -> dict[str, Any]:
    return field if field == {"type": "date"} else {"type": "object", "enabled": False}


def prepare(server: Server, name: str) -> None:
    """An empty data stream of a configuration."""
    for path in (f"/_data_stream/{STREAM}", "/_index_template/bench"):
        with suppress(urllib.error.HTTPError):
            server.request("DELETE", path)
    if (body := template(name)) is not None:
        server.request("PUT", "/_index_template/bench", body)
    server.request("PUT", f"/_data_stream/{STREAM}")


def measure(server: Server, name: str, settings: ElasticsearchSettings, batches: list[list[Entry]]) -> Cost:
    """Writes the documents; the first tenth warms the node up."""
    prepare(server, name)
    warm = len(batches) // 10 + 1
    asyncio.run(write(settings, batches[:warm]))
    before, compiled, own, began = node_cpu_s(server), compiler_cpu_s(server), cpu_s(0), time.monotonic()
    asyncio.run(write(settings, batches[warm:]))
    took, own = time.monotonic() - began, cpu_s(0) - own
    documents = sum(map(len, batches[warm:]))
    server.request("POST", f"/{STREAM}/_refresh")
    used, compiled = node_cpu_s(server) - before, compiler_cpu_s(server) - compiled
    server.request("POST", f"/{STREAM}/_forcemerge?max_num_segments=1", timeout_s=600)
    stored = server.get(f"/{STREAM}/_stats/store,docs")["_all"]["primaries"]
    size = stored["store"]["size_in_bytes"] / stored["docs"]["count"]
    cpu_us, compiler_us, own_us = (each / documents * 1e6 for each in (used - compiled, compiled, own))
    return Cost(cpu_us, compiler_us, size, documents, round(documents / took), round(own_us, 1))


def tell(name: str, cost: Cost, body_bytes: int) -> None:
    """The figures of a configuration."""
    more = {"configuration": name, "documents": cost.documents, "body_bytes": body_bytes}
    beside = {"compiler_us_per_doc": round(cost.compiler_us, 1), "client_us_per_doc": cost.client_us}
    figure("es_cpu_us_per_doc", cost.cpu_us, "µs", **more, wall_docs_per_s=cost.per_s, **beside)
    figure("es_bytes_per_doc", cost.stored_bytes, "B", **more)


def node_cpu_s(server: Server) -> float:
    """CPU seconds that all nodes have used."""
    nodes = server.get("/_nodes/stats/process")["nodes"]
    return sum(float(node["process"]["cpu"]["total_in_millis"]) for node in nodes.values()) / 1000


def compiler_cpu_s(server: Server) -> float:
    """CPU seconds that the compilers of nodes on this machine have used; of others nothing is known."""
    if urlsplit(server.urls[0]).hostname != "127.0.0.1":
        return 0.0
    used = 0
    for node in server.get("/_nodes/process")["nodes"].values():
        for thread in Path(f"/proc/{node['process']['id']}/task").glob("*/stat"):
            with suppress(OSError):  # it has ended; compilers do not
                name, _, rest = thread.read_text().partition("(")[2].rpartition(")")
                used += sum(map(int, rest.split()[11:13])) if COMPILER.fullmatch(name) else 0
    return used / os.sysconf("SC_CLK_TCK")


def mean_bytes(batches: list[list[Entry]]) -> int:
    """Of a document."""
    return round(sum(len(entry.body) for batch in batches for entry in batch) / sum(map(len, batches)))


def main(names: list[str], lines: int, rounds: int) -> None:
    """Measures each configuration in turn on one node, as many rounds as asked for; prints the table of the medians."""
    for name in names:
        template(name)
    with elasticsearch_node.server(measured=True) as server, tempfile.TemporaryDirectory() as folder:
        settings = set_up(server, Path(folder))
        whole = entries_of(log_file(Path(folder), lines))
        documents = {name: shortened(whole) if name.endswith(SHORT) else whole for name in names}
        body_bytes = {name: mean_bytes(batches) for name, batches in documents.items()}
        for name in names * 2:  # not told: the node's compiler has to see the work of each first
            measure(server, name, settings, documents[name])
        found: dict[str, list[Cost]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                found[name].append(measure(server, name, settings, documents[name]))
                tell(name, found[name][-1], body_bytes[name])
        prepare(server, "ours")  # a cluster that is not ours alone keeps no template of these measurements
        version = server.get("/")["version"]["number"]
    print(f"\nElasticsearch {version}, {lines:,} documents, {rounds} rounds\n", file=sys.stderr)
    print("| configuration | bytes sent a document | CPU µs | stored bytes |\n|---|---|---|---|", file=sys.stderr)
    for name, costs in found.items():
        cpu_us = statistics.median(cost.cpu_us for cost in costs)
        stored = statistics.median(cost.stored_bytes for cost in costs)
        print(f"| {name} | {body_bytes[name]} | {cpu_us:.0f} | {stored:.0f} |", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--configuration", action="append", help="only this one; may be given again")
    arguments = parser.parse_args()
    try:
        main(arguments.configuration or list(CONFIGURATIONS), arguments.lines, arguments.rounds)
    except NodeError as error:
        print(f"not measured: {error}", file=sys.stderr)
