"""What every store promises of following: nothing that becomes visible is left out, wherever a reader was interrupted."""

from __future__ import annotations

import time
from calendar import timegm
from collections import Counter
from collections.abc import Mapping
from itertools import takewhile
from types import SimpleNamespace

import pytest
from sample_entries import beyond, entry, utc
from stores import Store

from indexer.commands import tail
from indexer.document import Entry
from indexer.store.contract import Query, QueryError

CRITICAL = Query(severities=("critical",))
OVERLAP_MS = 600_000


def arriving(number: int, *, ago_ms: int = 0, severity: str = "critical", dataset: str = "web") -> Entry:
    """An event that is as old as it may be, and was ingested a while ago."""
    ingested_ms = time.time_ns() // 1_000_000 - ago_ms
    return entry(number, dataset=dataset, audit={"severity": severity}, event={"ingested": utc(ingested_ms)})


class Caller:
    """Follows, and remembers what it has seen, as the contract asks."""

    def __init__(self, store: Store, query: Query = CRITICAL) -> None:
        self._store = store
        self._query = query
        self._seconds: Counter[int] = Counter()
        self.ids: list[str] = []
        self.cursor: str | None = None

    def _known(self, low_ms: int, high_ms: int) -> Mapping[int, int]:
        return {second: n for second, n in self._seconds.items() if low_ms <= second * 1000 < high_ms}

    def look(self, *, portions_max: int = 1_000_000) -> list[str]:
        """The ids of one look that were not known, in their order; leaves off after so many portions."""
        new = []
        looked = self._store.reader.arrivals(self._query, self.cursor, known=self._known, overlap_ms=OVERLAP_MS)
        for _, arrivals in zip(range(portions_max), looked, strict=False):
            for hit in arrivals.hits:
                if hit.id not in self.ids:
                    self.ids.append(hit.id)
                    new += [] if arrivals.is_old else [hit.id]
                    body = hit.body.decode()
                    ingested = body.partition('"ingested":"')[2].partition('"')[0]
                    moment = time.strptime(ingested[:19], "%Y-%m-%dT%H:%M:%S")
                    self._seconds[timegm(moment)] += 1
            self.cursor = arrivals.cursor
        return new


def by_id(*entries: Entry) -> dict[str, Entry]:
    return {each.id: each for each in entries}


def test_it_begins_now_and_gives_each_arrival_once(store: Store) -> None:
    caller = Caller(store)
    store.append([arriving(1, ago_ms=60_000)])
    assert caller.look() == []
    first = by_id(*(arriving(number) for number in range(2, 6)), arriving(6, severity="info"), arriving(7, dataset="alert"))
    store.append(list(first.values()))
    assert set(caller.look()) == {entry(number).id for number in range(2, 6)}
    assert caller.look() == []
    second = by_id(arriving(8))
    store.append(list(second.values()))
    assert caller.look() == [entry(8).id]


def test_nothing_is_left_out_wherever_a_look_was_interrupted(store: Store) -> None:
    caller = Caller(store)
    caller.look()
    entries = by_id(*(arriving(number, severity=("critical", "info")[number % 3 == 0]) for number in range(3600)))
    store.append(list(entries.values()))
    for _ in range(3):
        caller.look(portions_max=1)
    caller.look()
    assert len(caller.ids) == 2400
    assert caller.look() == []


def test_what_becomes_visible_minutes_after_it_was_ingested_is_given(store: Store) -> None:
    caller = Caller(store)
    caller.look()
    early = by_id(*(arriving(number) for number in range(5)))
    store.append(list(early.values()))
    caller.look()
    late = by_id(*(arriving(number, ago_ms=120_000) for number in range(10, 13)))
    store.append(list(late.values()))
    assert set(caller.look()) == set(late)


def test_detections_are_followed_by_their_dataset(store: Store) -> None:
    caller = Caller(store, Query(datasets=("alert", "agent"), severities=("warning", "critical")))
    caller.look()
    entries = by_id(arriving(1, dataset="alert"), arriving(2, dataset="alert", severity="warning"), arriving(3))
    store.append(list(entries.values()))
    assert set(caller.look()) == {entry(1).id, entry(2).id}


def test_a_number_beyond_a_double_stops_no_follower(store: Store) -> None:
    caller = Caller(store, Query("user.name:ad?*"))
    caller.look()
    ingested = {"ingested": utc(time.time_ns() // 1_000_000)}
    store.append([beyond(1, event=ingested), arriving(2)])
    assert set(caller.look()) == {entry(1).id, entry(2).id}


def test_tail_gives_what_arrives_while_it_runs_each_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100, 10_000))
    arrived: list[str] = []

    def meanwhile(seconds: float) -> None:
        del seconds
        last = len(arrived) >= 2000
        entries = by_id(*(arriving(next(numbers), severity="info") for _ in range(1 if last else 500)))
        arrived.extend(entries)
        store.append(list(entries.values()))

    monkeypatch.setattr(tail, "SEEN_MAX", 100)
    monkeypatch.setattr(tail, "time", SimpleNamespace(sleep=meanwhile))
    store.append([arriving(1, ago_ms=60_000)])
    given = [
        hit.id
        for hit in takewhile(lambda hit: len(arrived) <= 2000 or hit.id != arrived[-1], tail.follow(store.reader, Query()))
    ]
    assert sorted(given) == sorted(arrived[:-1])


def test_a_cursor_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(QueryError, match="cursor"):
        list(store.reader.arrivals(CRITICAL, "nonsense", known=lambda *_: {}, overlap_ms=OVERLAP_MS))
