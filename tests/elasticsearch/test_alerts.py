"""Alerting and the record of the record on the real server; how they behave is told by the tests of the embedded store."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from alerting import critical
from elasticsearch_node import Server
from msgspec.json import decode
from sample_entries import utc

from auditship.clock import now_ms
from indexer.alerts.run import Alerts
from indexer.alerts.settings import AlertsSettings
from indexer.document import Entry
from indexer.record import Access, recorded, this_user
from indexer.settings import ElasticsearchSettings, IndexerSettings, StoreSettings
from indexer.store.contract import Query
from indexer.store.elasticsearch import ElasticsearchReader, ElasticsearchWriter


@pytest.fixture
def settings(elasticsearch_settings: ElasticsearchSettings) -> IndexerSettings:
    return IndexerSettings(store=StoreSettings(kind="elasticsearch"), elasticsearch=elasticsearch_settings)


def append(server: Server, settings: IndexerSettings, entries: Sequence[Entry]) -> None:
    """Stores entries, and makes them visible."""

    async def work() -> None:
        writer = ElasticsearchWriter(settings.elasticsearch)
        try:
            await writer.append(entries, redelivered=False)
        finally:
            await writer.close()

    asyncio.run(work())
    server.request("POST", "/logs-audit.*/_refresh")


def arrived(number: int, *, ago_ms: int = 0, **changes: object) -> Entry:
    return critical(number, event={"action": f"a{number}", "ingested": utc(now_ms() - ago_ms)}, **changes)


def test_what_becomes_visible_late_is_told_once_and_what_was_there_before_is_not(
    elasticsearch_server: Server, settings: IndexerSettings, tmp_path: Path
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        channel = {"name": "soc", "kind": "webhook", "url": url, "severities": ("critical", "warning")}
        alerting = AlertsSettings(state_dir=tmp_path, channel=[channel], late_interval_s=0.001)  # type: ignore[arg-type]
        append(elasticsearch_server, settings, [arrived(0), arrived(1, ago_ms=300_000)])
        alerts = Alerts(alerting, settings)
        for entries, waiting in (
            ([], 0),
            ([arrived(2), arrived(3, dataset="alert", audit={"severity": "warning"})], 2),
            ([arrived(4, ago_ms=200_000), arrived(5, dataset="agent")], 4),
            ([], 4),
        ):
            append(elasticsearch_server, settings, entries)
            alerts._look()
            assert alerts.outbox.pending("soc") == waiting
        alerts._end(0)


def test_the_writers_key_may_put_on_record_who_searched(elasticsearch_server: Server, settings: IndexerSettings) -> None:
    assert recorded(settings, Access("audit.search", this_user("search"), {"query": "a", "hits": 3}))
    elasticsearch_server.request("POST", "/logs-audit.*/_refresh")
    with closing(ElasticsearchReader(settings.elasticsearch)) as reader:
        (hit,) = reader.search(Query("audit.extra.query:a", datasets=("access",))).hits
        assert decode(hit.body)["user"]["id"] == this_user("search").id
        assert reader.count(Query()) == 0
