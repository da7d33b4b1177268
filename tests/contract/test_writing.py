"""What every store promises of what is added to it."""

from __future__ import annotations

import asyncio
from collections import Counter

from sample_entries import entry
from stores import Store

from indexer.store.contract import Query, Verdict


def test_what_was_appended_is_found_byte_for_byte(store: Store) -> None:
    entries = [entry(n) for n in range(50)] + [entry(99, event={"original": 'ünï\u2028\u0000 \U0001f600 \\" \n'})]
    assert store.append(entries) == [Verdict.CREATED] * 51
    hits = list(store.reader.scan(Query()))
    assert [(hit.id, hit.time_ms, hit.dataset, hit.retention, hit.body) for hit in hits] == [
        (each.id, each.time_ms, "web", "30d", each.body) for each in entries
    ]


def test_an_id_is_stored_once_within_a_batch_across_batches_and_across_writers(store: Store) -> None:
    assert store.append([entry(1), entry(2), entry(1)]) == [Verdict.CREATED, Verdict.CREATED, Verdict.DUPLICATE]
    verdicts = store.append([entry(2), entry(3)], redelivered=True)
    assert verdicts == [Verdict.DUPLICATE, Verdict.CREATED]
    assert store.append([entry(3), entry(4)]) == [Verdict.DUPLICATE, Verdict.CREATED]
    assert store.reader.count(Query()) == 4


def test_writers_that_append_at_once_store_each_id_once(store: Store) -> None:
    async def work() -> list[Verdict]:
        writers = [store.open_writer() for _ in range(3)]
        try:
            parts = await asyncio.gather(
                *(
                    writer.append([entry(n) for n in range(at, at + 200)], redelivered=False)
                    for writer in writers
                    for at in (0, 100)
                )
            )
        finally:
            for writer in writers:
                await writer.close()
        return [each for part in parts for each in part]

    verdicts = asyncio.run(work())
    store.refresh()
    assert verdicts.count(Verdict.CREATED) == 300 == store.reader.count(Query())
    assert verdicts.count(Verdict.DUPLICATE) == 900


def test_nothing_is_stored_of_nothing(store: Store) -> None:
    assert store.append([]) == []


def test_segments_tell_whose_documents_they_hold(store: Store) -> None:
    store.append([entry(n) for n in range(7)])
    store.append([entry(7, dataset="cli", organization={"id": "Org-1"})])
    found: Counter[str] = Counter()
    for segment in store.reader.segments():
        assert segment.retention == "30d"
        found.update(segment.organizations)
    assert found == {"org-0": 3, "org-1": 3, "org-2": 2}


def test_kinds_and_retention_classes_live_side_by_side(store: Store) -> None:
    store.append([entry(1), entry(2, dataset="cli"), entry(3, dataset="rejected"), entry(4, dataset="api")])
    assert {hit.dataset for hit in store.reader.scan(Query())} == {"web", "cli", "api"}
    assert [hit.dataset for hit in store.reader.scan(Query(datasets=("rejected",)))] == ["rejected"]
