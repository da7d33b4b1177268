"""Both stores, each behind the contract alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from elasticsearch_node import Server
from stores import NOW_MS, Store

from indexer.settings import ElasticsearchSettings
from indexer.store.elasticsearch import ElasticsearchReader, ElasticsearchWriter
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter


@pytest.fixture(params=["embedded", "elasticsearch"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each store in turn, empty."""
    if request.param == "embedded":
        with closing(EmbeddedReader(tmp_path, lambda: NOW_MS)) as reader:
            yield Store(lambda: EmbeddedWriter(tmp_path, lambda: NOW_MS), reader, lambda: None)
        return
    settings: ElasticsearchSettings = request.getfixturevalue("elasticsearch_settings")
    server: Server = request.getfixturevalue("elasticsearch_server")
    with closing(ElasticsearchReader(settings)) as elastic:
        yield Store(lambda: ElasticsearchWriter(settings), elastic, lambda: server.request("POST", "/logs-audit.*/_refresh"))
