"""The files of the two keys, when the keys are replaced and taken back: a cluster that makes keys, and knows them."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from answering import Asked, answering

from auditship.errors import ConfigurationError
from indexer.settings import ElasticsearchSettings
from indexer.setup.administrator import Administrator
from indexer.setup.change import Change, SetupError
from indexer.setup.keys import Keys
from indexer.store.elasticsearch.connection import Connection

NOBODY = 65534


def encoded(identity: str) -> str:
    return base64.b64encode(f"{identity}:secret".encode()).decode()


class Cluster:
    """Keys by id, with their names; two of them stand in files."""

    def __init__(self, folder: Path) -> None:
        self.keys = {"w-1": "auditship-writer", "r-1": "auditship-reader", "w-0": "auditship-writer"}
        self.files = {"writer_key_file": folder / "writer.key", "reader_key_file": folder / "reader.key"}
        for path, identity in zip(self.files.values(), ("w-1", "r-1"), strict=True):
            path.write_text(encoded(identity))
            path.chmod(0o440)
        self.url = ""

    def answer(self, asked: Asked) -> tuple[int, bytes]:
        said: dict[str, Any] = {}
        if asked.method == "GET":
            said = {"api_keys": [{"id": each} for each in self.keys]}
        elif asked.method == "DELETE":
            for each in json.loads(asked.body)["ids"]:
                del self.keys[each]
        else:
            made = f"new-{len(self.keys)}"
            self.keys[made] = json.loads(asked.body)["name"]
            said = {"id": made, "encoded": encoded(made)}
        return 200, json.dumps(said).encode()

    def work(self, what: str, **files: Path | None) -> list[Change]:
        settings = ElasticsearchSettings(urls=(self.url,), **{**self.files, **files})
        with closing(Connection(settings)) as connection:
            return list(getattr(Keys(Administrator(connection), settings), what)())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path)
    with answering(found.answer) as found.url:
        yield found


def standing(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def test_a_replaced_key_is_for_whoever_could_read_the_old_one(cluster: Cluster) -> None:
    if os.geteuid() == 0:
        for path in cluster.files.values():
            os.chown(path, NOBODY, NOBODY)
    before = [standing(path) for path in cluster.files.values()]
    assert [change.change for change in cluster.work("rotate")] == ["replaced", "replaced"]
    assert [standing(path) for path in cluster.files.values()] == before
    assert [path.read_text().strip() for path in cluster.files.values()] == [encoded("new-4"), encoded("new-3")]


def test_a_file_that_cannot_be_given_to_its_owner_is_not_replaced_and_no_key_is_made(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    path = cluster.files["writer_key_file"]
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    else:  # somebody else's file
        path.unlink()
        path.symlink_to("/etc/passwd")
    keys = dict(cluster.keys)
    with pytest.raises(SetupError, match=r"cannot be given to the owner of .*writer\.key: Operation not permitted"):
        cluster.work("rotate")
    assert cluster.keys == keys
    assert cluster.files["reader_key_file"].read_text() == encoded("r-1")


def test_a_key_that_could_not_be_written_down_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match=r"reader\.key\.new: No space left on device") as caught:
        cluster.work("rotate")
    assert "new-3" in caught.value.hint
    assert cluster.files["reader_key_file"].read_text() == encoded("r-1")


def test_keys_that_stand_in_no_file_are_taken_back(cluster: Cluster) -> None:
    assert {change.name.partition(" ")[2] for change in cluster.work("revoke")} == {"w-0"}
    assert set(cluster.keys) == {"w-1", "r-1"}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"writer_key_file": None, "reader_key_file": None}, "no key files are named"),
        ({"writer_key_file": None}, "writer_key_file is missing"),
        ({"reader_key_file": None}, "reader_key_file is missing"),
        ({"reader_key_file": Path("/nowhere/reader.key")}, "/nowhere/reader.key: No such file"),
        ({"reader_key_file": "garbage"}, "reader_key_file: holds no API key"),
    ],
)
def test_no_key_is_taken_back_while_it_is_not_known_which_are_in_use(
    cluster: Cluster, files: dict[str, Any], told: str, tmp_path: Path
) -> None:
    if files.get("reader_key_file") == "garbage":
        files = {"reader_key_file": tmp_path / "garbage"}
        files["reader_key_file"].write_text("nothing of the kind")
        files["reader_key_file"].chmod(0o600)
    keys = dict(cluster.keys)
    with pytest.raises(ConfigurationError, match=told):
        cluster.work("revoke", **files)
    assert cluster.keys == keys
