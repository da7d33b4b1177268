"""Retention on the real server: by class, by legal hold, and never shorter by accident."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from elasticsearch_node import Server
from sample_entries import entry
from stores import Store

from indexer.organizations import HOLD, Policies
from indexer.settings import ElasticsearchSettings
from indexer.setup.administrator import Administrator
from indexer.setup.change import Change, SetupError
from indexer.setup.cluster import ClusterSetup
from indexer.setup.keys import Keys
from indexer.store.contract import Query, Verdict
from indexer.store.elasticsearch import ElasticsearchReader, ElasticsearchWriter
from indexer.store.elasticsearch import segments as segments_module
from indexer.store.elasticsearch.connection import Connection

DAY_MS = 86_400_000
DEADLINE_S = 40
POLLS_S = 3.0
"""Some rounds of the lifecycle, in which nothing may happen."""


class Cluster:
    """A cluster, and its administrator."""

    def __init__(self, server: Server, settings: ElasticsearchSettings, folder: Path) -> None:
        self.server, self.settings, self.folder = server, settings, folder

    def set_up(self, policies: Policies, **options: Any) -> list[Change]:
        connection = Connection(self.settings, basic=(self.server.user, self.server.password))
        with closing(connection):
            administrator = Administrator(connection)
            setup = ClusterSetup(administrator, **options)
            changes = [*setup.run(policies.classes, ()), *Keys(administrator, self.settings).ensure(), *setup.holds(policies)]
        return [change for change in changes if change.change != "unchanged"]

    def policies(self, text: str) -> Policies:
        file = self.folder / "organizations.toml"
        file.write_text(text)
        return Policies.load(file, "30d")

    def store(self) -> Store:
        reader = ElasticsearchReader(self.settings)
        refresh = lambda: self.server.request("POST", "/logs-audit.*/_refresh")  # noqa: E731 - handed over
        return Store(lambda: ElasticsearchWriter(self.settings), reader, refresh)

    def indices(self, stream: str) -> list[str]:
        found = self.server.get(f"/_data_stream/{stream}")["data_streams"][0]["indices"]
        return [each["index_name"] for each in found]

    def age(self, index: str, days: int) -> None:
        origin = time.time_ns() // 1_000_000 - days * DAY_MS
        self.server.request("PUT", f"/{index}/_settings", {"index.lifecycle.origination_date": origin})


@pytest.fixture
def cluster(elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings, tmp_path: Path) -> Iterator[Cluster]:
    yield Cluster(elasticsearch_server, elasticsearch_settings, tmp_path)
    elasticsearch_server.request("DELETE", "/_data_stream/logs-audit.*")
    for retention in ("365d", HOLD):
        for path in (f"/_index_template/logs-audit-{retention}", f"/_ilm/policy/audit-{retention}"):
            try:
                elasticsearch_server.request("DELETE", path)
            except OSError:
                continue


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_documents_of_365_days_survive_what_deletes_those_of_30(cluster: Cluster) -> None:
    policies = cluster.policies('[[organization]]\nid = "org-1"\nretention = "365d"\n')
    cluster.set_up(policies)
    store = cluster.store()
    store.append([entry(n, retention=policies.retention(f"org-{n % 3}")) for n in range(9)])
    for stream in ("logs-audit.web-30d", "logs-audit.web-365d"):
        cluster.server.request("POST", f"/{stream}/_rollover")
        cluster.age(cluster.indices(stream)[0], 40)
    eventually(lambda: len(cluster.indices("logs-audit.web-30d")) == 1)
    store.refresh()
    assert {hit.retention for hit in store.reader.scan(Query())} == {"365d"}
    assert store.reader.count(Query(organization="org-1")) == 3
    store.reader.close()


def test_a_legal_hold_suspends_deletion_until_it_is_lifted_on_purpose(cluster: Cluster) -> None:
    nobody = cluster.policies("")
    cluster.set_up(nobody)
    store = cluster.store()
    store.append([entry(n) for n in range(9)])
    cluster.server.request("POST", "/logs-audit.web-30d/_rollover")
    old = cluster.indices("logs-audit.web-30d")[0]
    held = cluster.policies('[[organization]]\nid = "ORG-1"\nlegal_hold = true\n')
    changes = cluster.set_up(held)
    assert [(change.name, change.detail) for change in changes if change.kind == "backing_indices"] == [
        (old, f"lifecycle audit-30d -> audit-{HOLD}")
    ]
    assert cluster.set_up(held) == [], "a second run changes nothing"
    cluster.age(old, 50)
    time.sleep(POLLS_S)
    assert old in cluster.indices("logs-audit.web-30d")
    store.append([entry(20, retention=held.retention("ORG-1"))])
    assert store.reader.count(Query()) == 10
    with pytest.raises(SetupError, match="kept for 36500 days there, and would be for 30 days"):
        cluster.set_up(nobody)
    assert old in cluster.indices("logs-audit.web-30d")
    cluster.set_up(nobody, allow_shorter_retention=True)
    eventually(lambda: old not in cluster.indices("logs-audit.web-30d"))
    store.reader.close()


def test_a_quiet_organisation_among_many_is_held(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments_module, "PAGE", 3)
    cluster.set_up(cluster.policies(""))
    store = cluster.store()
    loud = [entry(n, organization={"id": f"loud-{n // 2}"}) for n in range(20)]
    store.append([*loud, entry(30, organization={"id": "quiet"}), entry(31, dataset="rejected", organization=None)])
    found = {segment.name: segment.organizations for segment in store.reader.segments()}
    (web,), (rejected,) = cluster.indices("logs-audit.web-30d"), cluster.indices("logs-audit.rejected-30d")
    assert found == {web: {f"loud-{n}": 2 for n in range(10)} | {"quiet": 1}, rejected: {}}
    held = cluster.policies('[[organization]]\nid = "quiet"\nlegal_hold = true\n')
    changes = cluster.set_up(held)
    assert [change.name for change in changes if change.kind == "backing_indices"] == [web]
    store.reader.close()


@pytest.mark.parametrize(
    ("phases", "kept"),
    [
        ({}, "for ever"),
        ({"delete": {"min_age": "90d", "actions": {"delete": {}}}}, "for 90 days"),
        (None, "for ever"),
    ],
    ids=["of its own", "of its own with an end", "none"],
)
def test_an_index_with_another_lifecycle_than_ours_is_not_kept_shorter_by_accident(
    cluster: Cluster, phases: dict[str, Any] | None, kept: str
) -> None:
    nobody, lifecycle = cluster.policies(""), None
    cluster.set_up(nobody)
    store = cluster.store()
    store.append([entry(n) for n in range(3)])
    store.reader.close()
    (index,) = cluster.indices("logs-audit.web-30d")
    if phases is not None:
        lifecycle = "audit-custom"
        cluster.server.request("PUT", f"/_ilm/policy/{lifecycle}", {"policy": {"phases": phases}})
    cluster.server.request("PUT", f"/{index}/_settings", {"index.lifecycle.name": lifecycle})
    with pytest.raises(SetupError, match=f"{index}: documents are kept {kept} there, and would be for 30 days"):
        cluster.set_up(nobody)
    held = cluster.policies('[[organization]]\nid = "org-1"\nlegal_hold = true\n')
    details = [change.detail for change in cluster.set_up(held) if change.kind == "backing_indices"]
    assert details == [f"lifecycle {lifecycle or 'none'} -> audit-{HOLD}"], "a hold keeps nothing shorter"
    if lifecycle:
        cluster.server.request("DELETE", f"/_ilm/policy/{lifecycle}")


def test_a_policy_that_keeps_longer_is_not_made_shorter_by_accident(cluster: Cluster) -> None:
    policies = cluster.policies("")
    cluster.set_up(policies)
    longer = cluster.server.get("/_ilm/policy/audit-30d")["audit-30d"]["policy"]
    longer["phases"]["delete"]["min_age"] = "90d"
    cluster.server.request("PUT", "/_ilm/policy/audit-30d", {"policy": longer})
    with pytest.raises(SetupError, match="90 days there, and would be for 30 days") as refused:
        cluster.set_up(policies)
    assert "--allow-shorter-retention" in str(refused.value)
    (change,) = cluster.set_up(policies, allow_shorter_retention=True)
    assert change.detail == 'policy.phases.delete.min_age: "90d" -> "30d"'


def test_keys_are_rotated_under_a_running_writer_and_old_ones_taken_back(cluster: Cluster, tmp_path: Path) -> None:
    for shared in (cluster.settings.writer_key_file, cluster.settings.reader_key_file):
        assert shared is not None
        shared.unlink()  # they will be taken back with the others; the next test makes new ones
    names = {"writer_key_file": tmp_path / "writer.key", "reader_key_file": tmp_path / "reader.key"}
    cluster.settings = cluster.settings.model_copy(update=names)
    cluster.set_up(cluster.policies(""))
    old = {path: path.read_text() for path in names.values()}
    store = cluster.store()
    writer = ElasticsearchWriter(cluster.settings)
    import asyncio  # noqa: PLC0415 - this test's alone

    async def work() -> list[Any]:
        first = await writer.append([entry(1)], redelivered=False)
        with closing(Connection(cluster.settings, basic=(cluster.server.user, cluster.server.password))) as connection:
            keys = Keys(Administrator(connection), cluster.settings)
            assert [change.change for change in keys.rotate()] == ["replaced", "replaced"]
            second = await writer.append([entry(2)], redelivered=False)
            assert {change.change for change in keys.revoke()} == {"taken back"}
        third = await writer.append([entry(3), entry(1)], redelivered=True)
        await writer.close()
        return [*first, *second, *third]

    verdicts = asyncio.run(work())
    assert verdicts == [Verdict.CREATED, Verdict.CREATED, Verdict.CREATED, Verdict.DUPLICATE]
    for path, text in old.items():
        assert path.read_text() != text
        assert path.stat().st_mode & 0o777 == 0o600
    store.refresh()
    assert store.reader.count(Query()) == 3
    store.reader.close()


def test_a_redelivered_document_is_found_in_another_class(cluster: Cluster) -> None:
    cluster.set_up(cluster.policies('[[organization]]\nid = "org-1"\nretention = "365d"\n'))
    store = cluster.store()
    store.append([entry(1)])
    assert store.append([entry(1, retention="365d")], redelivered=True) == [Verdict.DUPLICATE]
    store.reader.close()
