"""Promises of the writer, on the real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing

import pytest
from elasticsearch_node import Server
from sample_entries import entry

from indexer.document import Entry
from indexer.settings import MIB, ElasticsearchSettings
from indexer.store.contract import Hit, Query, Refused, Unavailable, Verdict
from indexer.store.elasticsearch import ElasticsearchReader, ElasticsearchWriter
from indexer.store.elasticsearch import stored as stored_module
from indexer.store.elasticsearch.bulk import encode
from indexer.store.elasticsearch.connection import NDJSON, Answer, connect
from indexer.store.elasticsearch.stored import Stored
from indexer.store.elasticsearch.writer import BULK

CREATED, DUPLICATE = Verdict.CREATED, Verdict.DUPLICATE
STREAM = "logs-audit.web-30d"
EVERYTHING = Query(datasets=("web", "cli", "rejected"))


def append(settings: ElasticsearchSettings, entries: Sequence[Entry], *, redelivered: bool = False) -> list[Verdict | Refused]:
    """One call of a writer of its own."""

    async def work() -> list[Verdict | Refused]:
        writer = ElasticsearchWriter(settings)
        try:
            return list(await writer.append(entries, redelivered=redelivered))
        finally:
            await writer.close()

    return asyncio.run(work())


def stored(server: Server, settings: ElasticsearchSettings) -> list[Hit]:
    """All documents, oldest first."""
    server.request("POST", "/logs-audit.*/_refresh")
    with closing(ElasticsearchReader(settings)) as reader:
        return list(reader.scan(EVERYTHING))


def test_stores_the_very_bytes_under_the_given_ids(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    odd = entry(
        3, audit={"extra": {"float": 1.50, "exponent": 1e5, "big": 12345678901234567890, "text": 'é\u2028\\ "x" \U0001f600'}}
    )
    spaced = Entry(odd.id, odd.time_ms, odd.dataset, odd.retention, odd.body.replace(b'"kind":', b'"kind" :  ', 1))
    entries = [entry(0), entry(1, dataset="cli"), entry(2, dataset="rejected"), spaced]
    assert append(elasticsearch_settings, entries) == [CREATED] * 4
    found = stored(elasticsearch_server, elasticsearch_settings)
    assert [(hit.id, hit.time_ms, hit.dataset, hit.retention, hit.body) for hit in found] == [
        (each.id, each.time_ms, each.dataset, each.retention, each.body) for each in entries
    ]


def test_a_bulk_of_which_all_was_created_is_answered_as_the_writer_knows_it(
    elasticsearch_settings: ElasticsearchSettings,
) -> None:
    connection = connect(elasticsearch_settings, "writer")
    with closing(connection):
        answer = connection.call("POST", "/_bulk", encode([entry(0), entry(1)]), content_type=NDJSON, params=BULK)
    assert answer.body == b'{"items":[{"create":{"status":201}},{"create":{"status":201}}]}'


def test_the_second_create_of_an_id_is_a_duplicate_and_changes_nothing(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    other = entry(0, event={"reason": "changed"})
    assert append(elasticsearch_settings, [entry(0), entry(1), other]) == [CREATED, CREATED, DUPLICATE]
    assert append(elasticsearch_settings, [other, entry(2)]) == [DUPLICATE, CREATED]
    assert [hit.body for hit in stored(elasticsearch_server, elasticsearch_settings)] == [entry(n).body for n in range(3)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": {"ip": "not-an-address"}}, "not-an-address"),
        ({"@timestamp": "the day before"}, "@timestamp"),
        ({"event": {"severity": {"object": 1}}}, "event.severity"),
        ({"organization": "a text, where an object is due"}, "organization"),
        ({"audit": {"extra": {"k" * 40_000: "v"}}}, "immense"),
        ({"audit": {"extra": {"nul\0key": "v"}}}, "reserved character"),
        ({"@timestamp": None}, "@timestamp"),
    ],
    ids=["ip", "date", "number", "object", "immense", "nul", "no-timestamp"],
)
def test_a_document_that_does_not_fit_is_refused_alone(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings, changes: dict[str, object], told: str
) -> None:
    verdicts = append(elasticsearch_settings, [entry(0), entry(1, **changes), entry(2)])
    assert [verdicts[0], verdicts[2]] == [CREATED, CREATED]
    assert isinstance(verdicts[1], Refused)
    assert told in verdicts[1].reason
    assert [hit.id for hit in stored(elasticsearch_server, elasticsearch_settings)] == [entry(0).id, entry(2).id]


def test_hostile_values_that_fit_are_stored(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    deep: dict[str, object] = {}
    for _ in range(15):
        deep = {"deeper": deep}
    entries = [
        entry(0, event={"original": "x" * MIB}),
        entry(1, user={"name": "n" * 100_000}, event={"reason": "word " * 100_000}),
        entry(2, audit={"changes": [{"field": "a", "from": 1, "to": {"b": [None]}}, {"field": "c", "from": [], "to": "d"}]}),
        entry(3, audit={"extra": deep | {"list": [1, "two", None, {"three": 3}], "long": "v" * 100_000}}),
        entry(4, unknown={"field": "no mapping"}, tags=["\u202e", "\x00", ""]),
        entry(5, source={"address": "a, b", "ip": "2001:db8::1", "geo": None}),
    ]
    assert append(elasticsearch_settings, entries) == [CREATED] * len(entries)
    assert [hit.body for hit in stored(elasticsearch_server, elasticsearch_settings)] == [each.body for each in entries]


def test_a_block_larger_than_a_bulk_is_split_and_answered_in_order(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    small = elasticsearch_settings.model_copy(update={"bulk_bytes_max": MIB, "bulks_in_flight_max": 3})
    entries = [entry(n, dataset=("web", "cli")[n % 2], event={"original": "x" * 3000}) for n in range(1500)]
    assert append(small, entries[:700]) == [CREATED] * 700
    assert append(small, entries) == [DUPLICATE] * 700 + [CREATED] * 800
    assert len(stored(elasticsearch_server, elasticsearch_settings)) == 1500


def test_a_bulk_beyond_the_server_s_memory_goes_in_parts(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    large = elasticsearch_settings.model_copy(update={"bulk_bytes_max": 90 * MIB})
    entries = [entry(n, event={"original": "x" * (3 * MIB)}) for n in range(12)]
    assert append(large, entries) == [CREATED] * 12
    assert len(stored(elasticsearch_server, elasticsearch_settings)) == 12


def test_redelivered_across_rollovers_makes_one_document(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    entries = [entry(n) for n in range(30)]
    for first in range(0, 30, 10):
        assert append(elasticsearch_settings, entries[first : first + 10]) == [CREATED] * 10
        elasticsearch_server.request("POST", f"/{STREAM}/_rollover")
    more = [*entries, entry(30), entry(31, dataset="cli"), entry(30)]
    again = append(elasticsearch_settings, more, redelivered=True)
    assert again == [DUPLICATE] * 30 + [CREATED, CREATED, DUPLICATE]
    assert sorted(hit.id for hit in stored(elasticsearch_server, elasticsearch_settings)) == sorted({each.id for each in more})


def test_ids_are_looked_up_in_many_indices_at_once_and_until_they_are_found(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_module, "PAIRS_MAX", 5)
    for first in (0, 2, 4):
        append(elasticsearch_settings, [entry(first), entry(first + 1)])
        elasticsearch_server.request("POST", f"/{STREAM}/_rollover")
    with closing(connect(elasticsearch_settings, "reader")) as connection:
        asked = []
        call = connection.call

        def heard(method: str, path: str, body: bytes | None = None, **more: object) -> Answer:
            if path == "/_mget":
                assert body is not None
                asked.append([each["_id"] for each in json.loads(body)["docs"]])
            return call(method, path, body, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(connection, "call", heard)
        stored = Stored(connection)
        names = [entry(n).id for n in (0, 3, 5, 9)]
        assert stored.among(entry(n) for n in (0, 3, 5, 9)) == set(names[:3])
        # indices, the newest first: an empty one, then 5, 3 and 0
        assert asked == [[*names, names[0]], [names[1], names[2], names[3], names[0], names[1]], [names[3], names[0], names[3]]]
        first = elasticsearch_server.get(f"/_data_stream/{STREAM}")["data_streams"][0]["indices"][0]["index_name"]
        missing = first.replace("000001", "999999")
        assert stored._found([(missing, names[0]), (first, names[0]), (missing, names[1])]) == {names[0]}
        elasticsearch_server.request("POST", f"/{first}/_close")
        with pytest.raises(Unavailable, match="index_closed_exception"):
            stored._found([(missing, names[0]), (first, names[0])])


def test_redelivered_while_indices_are_rolled_over_makes_one_document(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    async def work() -> None:
        writer = ElasticsearchWriter(elasticsearch_settings)
        entries = [entry(n) for n in range(200)]
        await writer.append(entries, redelivered=False)
        try:
            for _ in range(8):
                rollover = asyncio.to_thread(elasticsearch_server.request, "POST", f"/{STREAM}/_rollover")
                verdicts, _ = await asyncio.gather(writer.append(entries, redelivered=True), rollover)
                assert verdicts == [DUPLICATE] * 200
        finally:
            await writer.close()

    asyncio.run(work())
    assert len(stored(elasticsearch_server, elasticsearch_settings)) == 200


def test_many_tasks_at_once_store_each_id_once(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    async def work() -> list[Verdict | Refused]:
        writer = ElasticsearchWriter(elasticsearch_settings)
        try:
            blocks = [[entry(n) for n in range(first, first + 100)] for first in range(0, 1000, 50)]
            found = await asyncio.gather(*(writer.append(block, redelivered=False) for block in blocks))
            return [verdict for verdicts in found for verdict in verdicts]
        finally:
            await writer.close()

    verdicts = asyncio.run(work())
    assert verdicts.count(CREATED) == 1050
    assert verdicts.count(DUPLICATE) == 950
    assert len(stored(elasticsearch_server, elasticsearch_settings)) == 1050


def test_a_new_gateway_gets_its_data_stream_from_our_template(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    assert append(elasticsearch_settings, [entry(0, dataset="batch")]) == [CREATED]
    made = elasticsearch_server.get("/_data_stream/logs-audit.batch-30d")["data_streams"][0]
    assert (made["template"], made["ilm_policy"]) == ("logs-audit-30d", "audit-30d")


def test_a_retention_class_without_template_is_not_written_to(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings
) -> None:
    with pytest.raises(Unavailable, match="retention class 77d") as caught:
        append(elasticsearch_settings, [entry(0, retention="77d")])
    assert "auditship setup" in caught.value.hint
    assert "77d" not in json.dumps(elasticsearch_server.get("/_data_stream"))


def test_ready_says_what_is_missing(elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings) -> None:
    async def ready(settings: ElasticsearchSettings) -> None:
        writer = ElasticsearchWriter(settings)
        try:
            await writer.ready()
        finally:
            await writer.close()

    asyncio.run(ready(elasticsearch_settings))
    elasticsearch_server.request("DELETE", "/_data_stream/logs-audit.*")
    with pytest.raises(Unavailable, match="no audit data streams") as caught:
        asyncio.run(ready(elasticsearch_settings))
    assert "auditship setup" in caught.value.hint
    nowhere = elasticsearch_settings.model_copy(update={"urls": ("http://127.0.0.1:9",)})
    with pytest.raises(Unavailable, match=r"no answer from Elasticsearch at http://127\.0\.0\.1:9"):
        asyncio.run(ready(nowhere))


@pytest.mark.parametrize("block", ["index.blocks.read_only_allow_delete", "index.blocks.write"])
def test_an_index_that_takes_no_writes_is_waited_for(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings, block: str
) -> None:
    append(elasticsearch_settings, [entry(0)])
    elasticsearch_server.request("PUT", "/logs-audit.web-30d/_settings", {block: True})
    try:
        with pytest.raises(Unavailable):
            append(elasticsearch_settings, [entry(1), entry(2)])
    finally:
        elasticsearch_server.request("PUT", "/logs-audit.web-30d/_settings", {block: None})
    verdicts = append(elasticsearch_settings, [entry(1), entry(2)], redelivered=True)
    assert verdicts == [CREATED, CREATED]
