"""Answers of a cluster that knows the key no more, or that are none: what connection, writer and reader make of them."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import pytest
from answering import Asked, answering

from indexer.settings import ElasticsearchSettings
from indexer.store.contract import Unavailable
from indexer.store.elasticsearch.connection import Connection, connect

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
