"""Lines made to explode a mapping go the whole way through the pipeline, into the real server."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from contextlib import closing

from elasticsearch_node import Server
from support import header

from auditship.block import Receipt
from indexer.assemble import builder_of, places_of
from indexer.pipeline import Pipeline
from indexer.settings import ElasticsearchSettings, EnrichmentSettings
from indexer.store.contract import Query
from indexer.store.elasticsearch import ElasticsearchReader, ElasticsearchWriter

EVENT = {
    "timestamp": "2026-11-23T18:20:00Z",
    "organization": {"id": "org-1"},
    "actor": {"type": "user", "id": "u-1"},
    "action": "project.update",
    "resource": {"type": "project"},
    "status": "success",
}
KEYS = 100_000


def take(settings: ElasticsearchSettings, lines: list[str]) -> Receipt:
    """One block through a pipeline of its own."""
    data = "".join(line + "\n" for line in lines).encode()
    enrichment = EnrichmentSettings()

    async def work() -> Receipt:
        writer = ElasticsearchWriter(settings)
        try:
            builder = builder_of(enrichment, places_of(enrichment), retention="30d")
            return await Pipeline(builder, writer).take(header(data), data, sender="gw-1", organizations=frozenset())
        finally:
            await writer.close()

    return asyncio.run(work())


def hostile(chance: random.Random) -> Iterator[str]:
    """Keys without end, at once and one by one; nests without bottom."""

    def key() -> str:
        return f"k{chance.getrandbits(64):x}"

    yield json.dumps(EVENT | {key(): at for at in range(KEYS)})
    yield json.dumps(EVENT | {"nested": {key(): {key(): at} for at in range(KEYS // 10)}})
    for _ in range(500):
        yield json.dumps(EVENT | {key(): {key(): key()}})
    for depth in (15, 30, 900):
        yield json.dumps(EVENT)[:-1] + ',"deep":' + '{"a":' * depth + "1" + "}" * depth + "}"
    yield json.dumps(EVENT | {"k" * 300: 1, "a.b..c": 2, "": 3, ".": 4})


def test_keys_and_nests_without_end_stop_nothing_and_add_nothing_to_the_mapping(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    before = next(iter(elasticsearch_server.get("/logs-audit.web-30d/_mapping").values()))
    lines = [json.dumps(EVENT), *hostile(random.Random(seed)), json.dumps(EVENT | {"last": True})]
    receipt = take(elasticsearch_settings, lines)
    elasticsearch_server.request("POST", "/logs-audit.*/_refresh")
    with closing(ElasticsearchReader(elasticsearch_settings)) as reader:
        assert reader.count(Query()) == receipt.documents
        rejected = [json.loads(hit.body) for hit in reader.search(Query(datasets=("rejected",))).hits]
        too_deep = [line for line in lines if '{"a":' * 30 in line]
        assert sorted(each["event"]["original"] for each in rejected) == sorted(too_deep)
        assert len(too_deep) == 2
        assert all("document_parsing_exception" in each["audit"]["rejection"]["reason"] for each in rejected)
        assert (receipt.documents, receipt.rejected) == (len(lines) - 2, 2)
        assert reader.count(Query("audit.extra.last:true")) == 1
    assert next(iter(elasticsearch_server.get("/logs-audit.web-30d/_mapping").values())) == before
