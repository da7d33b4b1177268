"""Promises of the reader, on the real server; what it shares with the other store is in the contract tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest
from elasticsearch_node import Server
from sample_entries import entry

from indexer.document import Entry
from indexer.settings import ElasticsearchSettings
from indexer.store.contract import Query, Unavailable
from indexer.store.elasticsearch import ElasticsearchReader, ElasticsearchWriter
from indexer.store.elasticsearch import reader as reader_module

Fill = Callable[[Sequence[Entry]], ElasticsearchReader]


@pytest.fixture
def fill(elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings) -> Iterator[Fill]:
    """Stores entries, and gives a reader that can see them."""

    async def append(entries: Sequence[Entry]) -> None:
        writer = ElasticsearchWriter(elasticsearch_settings)
        try:
            await writer.append(entries, redelivered=False)
        finally:
            await writer.close()

    with closing(ElasticsearchReader(elasticsearch_settings)) as reader:

        def work(entries: Sequence[Entry]) -> ElasticsearchReader:
            asyncio.run(append(entries))
            elasticsearch_server.request("POST", "/logs-audit.*/_refresh")
            return reader

        yield work


def test_a_scan_that_is_left_early_leaves_nothing_open(fill: Fill, elasticsearch_server: Server) -> None:
    scan = fill([entry(n) for n in range(100)]).scan(Query())
    next(scan)
    scan.close()  # type: ignore[attr-defined]
    stats = elasticsearch_server.get("/_nodes/stats/indices/search")["nodes"]
    assert sum(node["indices"]["search"]["open_contexts"] for node in stats.values()) == 0


def test_as_many_hits_as_the_cluster_gives_at_once_are_a_page(
    fill: Fill, elasticsearch_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "WINDOW", 10)
    elasticsearch_server.request("PUT", "/logs-audit.web-30d/_settings", {"index.max_result_window": 10})
    reader = fill([entry(n) for n in range(10)])
    page = reader.search(Query(), limit=10)
    assert (len(page.hits), page.cursor) == (10, None)
    reader = fill([entry(10)])
    for limit in (10, 11):
        page = reader.search(Query(), limit=limit)
        assert len(page.hits) == 10
        assert [hit.id for hit in reader.search(Query(), limit=limit, cursor=page.cursor).hits] == [entry(0).id]


def test_a_cluster_that_is_not_there_is_unavailable(elasticsearch_settings: ElasticsearchSettings) -> None:
    nowhere = elasticsearch_settings.model_copy(update={"urls": ("http://127.0.0.1:9",)})
    with closing(ElasticsearchReader(nowhere)) as reader, pytest.raises(Unavailable, match="no answer"):
        reader.search(Query())
