"""Promises of the two keys that `auditship setup` makes: one can only add, the other can only read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest
from elasticsearch import ApiError, Elasticsearch
from elasticsearch_node import Server
from sample_entries import decoded, entry

from auditship.settings import read_secret
from indexer.settings import ElasticsearchSettings
from indexer.store.contract import Unavailable
from indexer.store.elasticsearch import ElasticsearchWriter
from indexer.store.elasticsearch.connection import Connection

STREAM = "logs-audit.web-30d"


def client(settings: ElasticsearchSettings, side: str) -> Elasticsearch:
    path = settings.writer_key_file if side == "writer" else settings.reader_key_file
    assert path is not None
    return Elasticsearch(list(settings.urls), api_key=read_secret(path), ca_certs=settings.ca_file)


@pytest.fixture
def backing_index(elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings) -> Iterator[str]:
    """The data stream's only index, with one document."""
    with closing(client(elasticsearch_settings, "writer")) as writer:
        made = writer.create(index=STREAM, id=entry(0).id, document=decoded(entry(0).body), refresh=False)
    assert made["result"] == "created"
    yield made["_index"]
    found = elasticsearch_server.get(f"/{made['_index']}/_doc/{entry(0).id}")
    assert found["_source"] == decoded(entry(0).body), "the document changed"


WRITER_MAY_NOT = {
    "create again": lambda es, _: es.create(index=STREAM, id=entry(0).id, document=decoded(entry(1).body)),
    "overwrite": lambda es, _: es.index(index=STREAM, id=entry(0).id, document=decoded(entry(1).body)),
    "overwrite in the backing index": lambda es, index: es.index(
        index=index, id=entry(0).id, document=decoded(entry(1).body), if_seq_no=0, if_primary_term=1
    ),
    "update": lambda es, index: es.update(index=index, id=entry(0).id, doc={"tags": ["changed"]}),
    "delete": lambda es, index: es.delete(index=index, id=entry(0).id),
    "delete by query": lambda es, _: es.delete_by_query(index=STREAM, query={"match_all": {}}),
    "update by query": lambda es, _: es.update_by_query(index=STREAM, query={"match_all": {}}),
    "delete the index": lambda es, index: es.indices.delete(index=index),
    "delete the data stream": lambda es, _: es.indices.delete_data_stream(name=STREAM),
    "roll over": lambda es, _: es.indices.rollover(alias=STREAM),
    "change the settings": lambda es, index: es.indices.put_settings(index=index, settings={"index.lifecycle.name": "none"}),
    "change the policy": lambda es, _: es.ilm.put_lifecycle(name="audit-30d", policy={"phases": {}}),
    "search": lambda es, _: es.search(index=STREAM),
    "get": lambda es, index: es.get(index=index, id=entry(0).id),
    "write elsewhere": lambda es, _: es.create(index="logs-other-default", id="1", document={"@timestamp": 0}),
    "make a key": lambda es, _: es.security.create_api_key(name="more", role_descriptors={"all": {"cluster": ["all"]}}),
}


@pytest.mark.parametrize("what", WRITER_MAY_NOT)
def test_the_writer_may_not(what: str, backing_index: str, elasticsearch_settings: ElasticsearchSettings) -> None:
    with closing(client(elasticsearch_settings, "writer")) as writer, pytest.raises(ApiError) as caught:
        WRITER_MAY_NOT[what](writer, backing_index)
    assert caught.value.status_code in {400, 403, 409}, caught.value


READER_MAY_NOT = {
    "create": lambda es, _: es.create(index=STREAM, id=entry(1).id, document=decoded(entry(1).body)),
    "update": lambda es, index: es.update(index=index, id=entry(0).id, doc={"tags": ["changed"]}),
    "delete": lambda es, index: es.delete(index=index, id=entry(0).id),
    "delete the data stream": lambda es, _: es.indices.delete_data_stream(name=STREAM),
    "see other data": lambda es, _: es.search(index=".security"),
}


@pytest.mark.parametrize("what", READER_MAY_NOT)
def test_the_reader_may_not(what: str, backing_index: str, elasticsearch_settings: ElasticsearchSettings) -> None:
    with closing(client(elasticsearch_settings, "reader")) as reader, pytest.raises(ApiError) as caught:
        READER_MAY_NOT[what](reader, backing_index)
    assert caught.value.status_code in {403, 404}, caught.value


def test_a_key_that_was_taken_back_makes_the_store_unavailable(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    made = elasticsearch_server.request("POST", "/_security/api_key", {"name": "brief"})
    elasticsearch_server.request("DELETE", "/_security/api_key", {"ids": [made["id"]]})
    with closing(Connection(elasticsearch_settings, api_key=made["encoded"])) as connection:
        with pytest.raises(Unavailable, match="401") as caught:
            connection.call("GET", "/_security/_authenticate")
        assert "auditship setup" in caught.value.hint
        assert made["encoded"] not in str(caught.value)


def test_a_writer_with_the_reader_s_key_loses_nothing_and_says_why(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    swapped = elasticsearch_settings.model_copy(update={"writer_key_file": elasticsearch_settings.reader_key_file})

    async def work() -> None:
        writer = ElasticsearchWriter(swapped, sleep=lambda _: None)
        try:
            with pytest.raises(Unavailable, match="unauthorized") as caught:
                await writer.append([entry(0)], redelivered=False)
            assert not caught.value.overloaded
        finally:
            await writer.close()

    asyncio.run(work())
    elasticsearch_server.request("POST", f"/{STREAM}/_refresh")
    assert elasticsearch_server.get(f"/{STREAM}/_count")["count"] == 0
