"""Answers of a cluster that knows the key no more, or that are none: what connection, writer and reader make of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from answering import Asked, answering
from sample_entries import entry

from indexer.settings import ElasticsearchSettings
from indexer.setup.administrator import Administrator
from indexer.setup.change import SetupError
from indexer.setup.cluster import ClusterSetup
from indexer.store.contract import Query, Unavailable
from indexer.store.elasticsearch import ElasticsearchReader, ElasticsearchWriter
from indexer.store.elasticsearch.connection import Connection, connect

STREAMS = b'{"data_streams":[{"name":"logs-audit.web-30d","template":"logs-audit-30d","indices":[{"index_name":".ds-1"}]}]}'
NOT_UTF_8 = b"""{
    "items": [{"create": {"status": 400, "error": {"type": "\xff"}}}],
    "data_streams": [{"name": "\xff"}],
    "docs": [{"_id": "\xff"}],
    "hits": {"hits": [{"_id": "\xff"}]},
    "aggregations": {"held": {"buckets": [{"key": {"index": "\xff"}}]}}
}"""
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
OLD, NEW = "b2xkOm9sZA==", "bmV3Om5ldw=="
THREADS = 4


@pytest.fixture
def settings(tmp_path: Path) -> ElasticsearchSettings:
    """With the new key in both files."""
    files = {"writer_key_file": tmp_path / "writer.key", "reader_key_file": tmp_path / "reader.key"}
    for path in files.values():
        path.write_text(NEW)
        path.chmod(0o600)
    return ElasticsearchSettings(**files)


def test_of_requests_that_meet_a_replaced_key_at_once_each_is_sent_again(settings: ElasticsearchSettings) -> None:
    together = threading.Barrier(THREADS)

    def answer(asked: Asked) -> tuple[int, bytes]:
        if asked.authorization == f"ApiKey {NEW}":
            return 200, b"{}"
        together.wait(20)
        return 401, b"{}"

    found: list[object] = []

    def ask(connection: Connection) -> None:
        try:
            found.append(connection.call("GET", "/").status)
        except Unavailable as error:
            found.append(error)

    path = settings.writer_key_file
    assert path is not None
    path.write_text(OLD)
    with answering(answer) as url, closing(connect(settings.model_copy(update={"urls": (url,)}), "writer")) as connection:
        path.write_text(NEW)
        threads = [threading.Thread(target=ask, args=(connection,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [200] * THREADS


def test_a_key_that_is_refused_beside_a_file_that_cannot_be_read_is_told_with_the_file(settings: ElasticsearchSettings) -> None:
    path = settings.writer_key_file
    assert path is not None
    with (
        answering(lambda _: (401, b'{"error":{"type":"security_exception","reason":"unable to authenticate"}}')) as url,
        closing(connect(settings.model_copy(update={"urls": (url,)}), "writer")) as connection,
    ):
        path.chmod(0o604)
        with pytest.raises(Unavailable, match=rf"401 .*unable to authenticate.*; {path}: readable by everybody") as caught:
            connection.call("GET", "/")
        assert f"chmod o-rwx {path}" in caught.value.hint
        path.unlink()
        with pytest.raises(Unavailable, match=rf"401 .*; {path}: No such file"):
            connection.call("GET", "/")


def test_a_count_of_a_part_is_no_count(settings: ElasticsearchSettings) -> None:
    def answer(asked: Asked) -> tuple[int, bytes]:
        """Two of three shards are away."""
        if "allow_partial_search_results=false" in asked.query:
            return 503, b'{"error":{"type":"search_phase_execution_exception","reason":"Partial shards failure"}}'
        return 200, b'{"count":5,"hits":{"total":{"value":5}},"_shards":{"total":3,"failed":2}}'

    with (
        answering(answer) as url,
        closing(ElasticsearchReader(settings.model_copy(update={"urls": (url,)}))) as reader,
        pytest.raises(Unavailable, match="Partial shards failure"),
    ):
        reader.count(Query())


def append(settings: ElasticsearchSettings, *, redelivered: bool = False) -> None:
    async def work() -> None:
        writer = ElasticsearchWriter(settings, sleep=lambda _: None)
        try:
            await writer.append([entry(0)], redelivered=redelivered)
        finally:
            await writer.close()

    asyncio.run(work())


def look_up(settings: ElasticsearchSettings) -> None:
    append(settings, redelivered=True)


def search(settings: ElasticsearchSettings) -> None:
    with closing(ElasticsearchReader(settings)) as reader:
        reader.search(Query())


def tell_segments(settings: ElasticsearchSettings) -> None:
    with closing(ElasticsearchReader(settings)) as reader:
        reader.segments()


def set_up(settings: ElasticsearchSettings) -> None:
    with closing(Connection(settings)) as connection:
        list(ClusterSetup(Administrator(connection)).run((), ()))


@pytest.mark.parametrize("garbage", [NOT_UTF_8, DEEP], ids=["not UTF-8", "deep"])
@pytest.mark.parametrize(
    ("ask", "at"),
    [
        (append, "/_bulk"),
        (look_up, "/logs-audit.web-*"),
        (look_up, "/_mget"),
        (search, "/_search"),
        (tell_segments, "/_search"),
        (set_up, "/"),
    ],
)
def test_an_answer_that_cannot_be_decoded_is_none(
    settings: ElasticsearchSettings, ask: Callable[[ElasticsearchSettings], None], at: str, garbage: bytes
) -> None:
    def answer(asked: Asked) -> tuple[int, bytes]:
        return 200, garbage if asked.path.endswith(at) else STREAMS

    with answering(answer) as url, pytest.raises((Unavailable, SetupError)):
        ask(settings.model_copy(update={"urls": (url,)}))


def test_a_cluster_that_was_just_started_is_waited_for_where_asking_again_does_no_harm(
    settings: ElasticsearchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(request: Asked) -> tuple[int, bytes]:
        asked.append(request.method)
        return (503, b'{"error":{"type":"unavailable_shards_exception"}}') if len(asked) % 3 else (200, b"{}")

    monkeypatch.setattr("indexer.setup.administrator.PAUSE_S", 0.0)
    with (
        answering(answer) as url,
        closing(Connection(settings.model_copy(update={"urls": (url,)}))) as connection,
    ):
        administrator = Administrator(connection)
        assert administrator.get("/_security/role/audit-reader") == {}
        assert asked == ["GET"] * 3
        with pytest.raises(SetupError, match="unavailable_shards"):
            administrator.call("POST", "/_security/api_key", {})
    assert asked == ["GET"] * 3 + ["POST"]
