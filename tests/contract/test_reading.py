"""What every store promises of finding: the same query gives the same hits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from sample_entries import START_MS, beyond, entry, utc
from stores import Store

from indexer.document import Entry
from indexer.store.contract import Query, QueryError, Reader

Fill = Callable[[Sequence[Entry]], Reader]


@pytest.fixture
def fill(store: Store) -> Fill:
    """Stores entries, and gives a reader that can see them."""

    def work(entries: Sequence[Entry]) -> Reader:
        store.append(entries)
        return store.reader

    return work


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('source.ip:"203.0.113.0/30"', {0, 1, 2, 3}),
        ('source.ip:"2001:db8::/32"', {10}),
        ("user.name:ADA*2 AND audit.severity:critical", {2}),
        ('user.name:"aDa LoVeLaCe 3"', {3}),
        ("USER.NAME:ada*", set()),
        ("event.outcome:failure", {0, 7}),
        ("event.severity:>=99", {2, 5, 8}),
        ("event.reason:password", {0, 7}),
        ("NOT _exists_:event.reason", {1, 2, 3, 4, 5, 6, 8, 9, 10}),
        ("audit.extra.team:team-3", {3, 8}),
        ("audit.extra.n:[7 TO 8]", {7, 8}),
        ("audit.changes.field:Colour", {9}),
        ("event.sequence:2500", {5}),
        ("log.offset:[4000 TO *]", {8, 9, 10}),
        (f"@timestamp:[{utc(START_MS + 8)} TO *]", {8, 9, 10}),
        ("wrong", {0, 7}),
        ("org-1 AND p-4", {4}),
        ("Ada Lovelace 3", {3}),
        ("user.name:(ada lovelace 4)", {4}),
        ("p-2 p-4", set()),
        ("p-2 OR p-4", {2, 4}),
        ("no.such.field:* p-2 p-4", set()),
        ("U-6", {6}),
    ],
)
def test_finds_by_what_people_write(fill: Fill, text: str, expected: set[int]) -> None:
    entries = [entry(n) for n in range(9)]
    entries += [entry(9, audit={"changes": [{"field": "colour", "from": "red", "to": {"any": ["json"]}}]})]
    entries += [entry(10, source={"ip": "2001:db8::7"})]
    reader = fill(entries)
    found = {hit.time_ms - START_MS for hit in reader.search(Query(text=text)).hits}
    assert found == expected


def test_a_number_beyond_a_double_stops_no_reader(fill: Fill) -> None:
    reader = fill([entry(0), beyond(1, "1e999"), beyond(2, "9" * 400), entry(3)])
    for text in ("user.name:ad?*", "audit.extra.team:team-*", "NOT audit.extra.n:7"):
        found = [hit.time_ms - START_MS for hit in reader.scan(Query(text))]
        assert found == [hit.time_ms - START_MS for hit in reversed(reader.search(Query(text)).hits)] == [0, 1, 2, 3]
        assert sum(sum(each.counts.values()) for each in reader.histogram(Query(text), interval_ms=1000)) == 4
        assert sum(count for _, count in reader.facets(Query(text), ["user.id"])["user.id"]) == 4
    assert reader.count(Query("audit.extra.quota:1e999")) == 1
    assert reader.count(Query(f"audit.extra.quota:{'9' * 400}")) == 1


@pytest.mark.parametrize("text", ["a AND", "(", 'user.name:"x', "event.severity:[1 TO", "ada^."])
def test_a_query_that_cannot_be_understood_is_told(fill: Fill, text: str) -> None:
    reader = fill([entry(0)])
    with pytest.raises(QueryError, match="query"):
        reader.search(Query(text=text))
    with pytest.raises(QueryError):
        reader.count(Query(text=text))
    with pytest.raises(QueryError):
        list(reader.scan(Query(text=text)))


@pytest.mark.parametrize("field", ["text", "organization", "actor", "action", "organizations"])
def test_a_query_that_is_not_unicode_is_told(field: str) -> None:
    with pytest.raises(QueryError, match=r"not Unicode: '\\udce9'"):
        Query(**{field: ("caf\udce9",) if field == "organizations" else "caf\udce9"})  # type: ignore[arg-type]


def test_filters_hold_all_at_once_and_without_regard_to_case(fill: Fill) -> None:
    reader = fill([entry(n, dataset=("web", "cli")[n % 2]) for n in range(60)] + [entry(60, dataset="rejected")])
    for actor in ("U-7", "ADA LOVELACE 7", "Ada7@Example.com"):
        query = Query(actor=actor, severities=("warning",), outcome="failure", organization="ORG-1", action="Project.Update")
        assert [hit.time_ms - START_MS for hit in reader.search(query).hits] == [7]
    assert reader.count(Query()) == 60
    assert reader.count(Query(datasets=("cli",))) == 30
    assert reader.count(Query(datasets=("rejected",))) == 1
    assert reader.count(Query(since_ms=START_MS + 10, until_ms=START_MS + 20)) == 10
    assert reader.count(Query(datasets=("nothing",))) == 0
    with pytest.raises(QueryError):
        reader.count(Query(datasets=("*,.security",)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "organization.id:org-2",
        "organization.id:*",
        "* OR organization.id:org-2",
        "NOT organization.id:org-1",
        "_exists_:event.id OR user.name:*",
        "p-1 OR p-4 OR wrong",
        "+organization.id:org-2 -organization.id:org-1",
        'organization.id:"org-1" OR organization.id:("org-2" OR "ORG-3")',
        'user.name:") OR 1=1 --" OR *',
    ],
)
def test_no_query_finds_what_the_asker_may_not_see(fill: Fill, text: str) -> None:
    entries = [entry(n, organization={"id": f"org-{n % 3 + 1}"}) for n in range(12)]
    entries += [entry(12, organization=None), entry(13, organization={"id": "ORG-1"}), entry(14, dataset="rejected")]
    reader = fill(entries)
    everything = {hit.time_ms - START_MS for hit in reader.search(Query(text, organization=None)).hits}
    seen = {hit.time_ms - START_MS for hit in reader.search(Query(text, organizations=("org-1", "no-such"))).hits}
    assert seen == everything & {0, 3, 6, 9, 13}
    assert reader.count(Query(text, organizations=("org-1",))) == len(seen)
    assert not reader.search(Query(text, organizations=("org-1",), organization="org-2")).hits


def test_pages_go_on_exactly_where_the_last_one_ended_whatever_the_times(fill: Fill) -> None:
    entries = [entry(n, time_ms=START_MS + n % 3) for n in range(98)]
    reader = fill(entries)
    found, cursor, pages = [], None, 0
    while True:
        page = reader.search(Query(), limit=7, cursor=cursor)
        found += page.hits
        cursor, pages = page.cursor, pages + 1
        if cursor is None:
            break
    assert pages == 14, "no empty page at the end"
    assert sorted(hit.id for hit in found) == sorted(each.id for each in entries)
    assert [hit.time_ms for hit in found] == sorted((each.time_ms for each in entries), reverse=True)
    assert [hit.id for hit in reversed(found)] == [hit.id for hit in reader.scan(Query())]


@pytest.mark.parametrize("cursor", ["", "x", "bnVsbA==", "WzEsMl0=", "☃"])
def test_a_cursor_that_no_search_gave_is_refused(fill: Fill, cursor: str) -> None:
    with pytest.raises(QueryError, match="cursor"):
        fill([entry(0)]).search(Query(), cursor=cursor)


def test_a_scan_gives_everything_oldest_first_in_pages_that_follow_the_size(fill: Fill) -> None:
    entries = [entry(n, event={"original": "x" * (200_000 if n % 40 == 0 else 100)}) for n in range(400)]
    reader = fill(entries)
    assert [hit.body for hit in reader.scan(Query())] == [each.body for each in entries]


def test_counts_over_time_and_by_value(fill: Fill) -> None:
    reader = fill([entry(n, time_ms=START_MS + n * 60_000) for n in range(9)])
    expected: dict[int, Counter[str]] = {}
    for n in range(9):
        start = (START_MS + n * 60_000) // 180_000 * 180_000
        expected.setdefault(start, Counter())[("info", "warning", "critical")[n % 3]] += 1
    found = reader.histogram(Query(), interval_ms=180_000)
    assert {each.start_ms: dict(each.counts) for each in found} == {start: dict(counts) for start, counts in expected.items()}
    assert [each.start_ms for each in found] == sorted(expected)
    facets = reader.facets(Query(), ["audit.severity", "source.ip", "event.outcome", "no.such.field"], limit=2)
    assert facets["event.outcome"] == [("success", 7), ("failure", 2)]
    assert [count for _, count in facets["audit.severity"]] == [3, 3]
    assert facets["source.ip"][0] == ("203.0.113.0", 1)
    assert facets["no.such.field"] == []
    seldom = reader.facets(Query(), ["user_agent.os.full", "log.offset", "ecs.version"], limit=2)
    assert seldom["user_agent.os.full"] == [("macOS 10.15.7", 9)]
    assert seldom["log.offset"] == [("0", 1), ("500", 1)]
    assert seldom["ecs.version"] == [("9.0.0", 9)]
    for name in ("event.reason", "http.request.id", "user_agent.original", "related.user", "audit.location"):
        with pytest.raises(QueryError, match=name):
            reader.facets(Query(), [name])


def test_an_actor_s_history_is_that_of_one_organisation_newest_first(fill: Fill) -> None:
    reader = fill([entry(n) for n in range(160)])
    hits = reader.actor_history("org-1", "u-3", since_ms=START_MS + 4)
    assert [hit.time_ms - START_MS for hit in hits] == [103]
    assert [hit.time_ms - START_MS for hit in reader.actor_history("org-0", "u-3", since_ms=0, limit=2)] == [153, 3]
