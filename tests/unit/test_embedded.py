"""Promises of the embedded store's files; what it shares with the other store is in the contract tests."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec.structs import replace
from sample_entries import START_MS, entry, entry_id

from auditship.errors import ConfigurationError
from indexer.assemble import expire
from indexer.commands.search import newest
from indexer.document import Entry
from indexer.organizations import Policies, Policy
from indexer.store.contract import Query, QueryError, Refused, Unavailable, Verdict
from indexer.store.embedded import EmbeddedExpirer, EmbeddedReader, EmbeddedWriter
from indexer.store.embedded import arrivals as arrivals_module
from indexer.store.embedded import writer as writer_module
from indexer.store.embedded.predicate import predicate
from indexer.store.embedded.segment import is_gone, open_to_read, open_to_write
from indexer.store.query import parse

DAY_MS = 86_400_000
NOON_MS = 1_795_435_200_000
"""2026-11-23T12:00:00Z"""


def append(
    directory: Path, entries: Sequence[Entry], *, now_ms: int = NOON_MS, redelivered: bool = False
) -> Sequence[Verdict | Refused]:
    async def work() -> Sequence[Verdict | Refused]:
        writer = EmbeddedWriter(directory, lambda: now_ms)
        try:
            return await writer.append(entries, redelivered=redelivered)
        finally:
            await writer.close()

    return asyncio.run(work())


def reader(directory: Path) -> EmbeddedReader:
    return EmbeddedReader(directory, lambda: NOON_MS)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.sqlite"))


def test_a_segment_is_a_day_of_arrival_and_a_retention_class_whatever_the_events_say(tmp_path: Path) -> None:
    old = [entry(1, time_ms=NOON_MS - 900 * DAY_MS), entry(2, time_ms=NOON_MS + 900 * DAY_MS), entry(3, retention="365d")]
    append(tmp_path, old)
    append(tmp_path, [entry(4)], now_ms=NOON_MS + DAY_MS)
    assert names(tmp_path) == ["2026-11-23.30d.sqlite", "2026-11-23.365d.sqlite", "2026-11-24.30d.sqlite"]
    hits = list(reader(tmp_path).scan(Query()))
    assert [hit.time_ms for hit in hits] == sorted(hit.time_ms for hit in hits)
    assert {hit.retention for hit in hits} == {"30d", "365d"}
    assert len(hits) == 4


@pytest.mark.parametrize("dataset", ["web", "rejected"])
def test_a_redelivered_document_is_found_in_the_days_before(tmp_path: Path, dataset: str) -> None:
    entries = [entry(n, dataset=dataset, id=entry_id(n, 0 if dataset == "rejected" else START_MS + n)) for n in range(1200)]
    append(tmp_path, entries[:700])
    append(tmp_path, [entry(9999, time_ms=START_MS + 10**9)], now_ms=NOON_MS + DAY_MS)
    later = [
        entry(n, dataset=dataset, id=each.id, time_ms=each.time_ms + (dataset == "rejected")) for n, each in enumerate(entries)
    ]
    verdicts = append(tmp_path, later, now_ms=NOON_MS + 2 * DAY_MS, redelivered=True)
    assert verdicts == [Verdict.DUPLICATE] * 700 + [Verdict.CREATED] * 500
    assert reader(tmp_path).count(Query(datasets=(dataset,))) == 1200 + (dataset == "web")


def test_a_redelivered_document_of_another_retention_class_is_found_too(tmp_path: Path) -> None:
    append(tmp_path, [entry(1)])
    assert append(tmp_path, [entry(1, retention="365d"), entry(2)], redelivered=True) == [Verdict.DUPLICATE, Verdict.CREATED]


def test_thirty_to_thirty_one_days_are_kept(tmp_path: Path) -> None:
    append(tmp_path, [entry(1), entry(2, retention="365d")])
    day_end_ms = NOON_MS + DAY_MS // 2
    assert EmbeddedExpirer(tmp_path).expire(day_end_ms + 30 * DAY_MS - 1) == []
    assert EmbeddedExpirer(tmp_path).expire(day_end_ms + 30 * DAY_MS) == ["2026-11-23.30d.sqlite"]
    assert EmbeddedExpirer(tmp_path).expire(day_end_ms + 365 * DAY_MS - 1) == []
    assert EmbeddedExpirer(tmp_path).expire(day_end_ms + 365 * DAY_MS) == ["2026-11-23.365d.sqlite"]
    assert list(tmp_path.iterdir()) == [], "nothing is left beside"


def test_a_file_goes_after_what_is_beside_it_which_nobody_would_look_for_without_it(tmp_path: Path) -> None:
    append(tmp_path, [entry(1)])
    (tmp_path / "2026-11-23.30d.sqlite-wal").touch()
    (tmp_path / "2026-11-23.30d.sqlite-shm").mkdir()  # as far as this an expirer comes
    with pytest.raises(OSError, match="shm"):
        EmbeddedExpirer(tmp_path).expire(NOON_MS + 99 * DAY_MS)
    assert names(tmp_path) == ["2026-11-23.30d.sqlite"]
    (tmp_path / "2026-11-23.30d.sqlite-shm").rmdir()
    EmbeddedExpirer(tmp_path).expire(NOON_MS + 99 * DAY_MS)
    assert list(tmp_path.iterdir()) == []


def test_a_held_segment_is_kept_and_a_reader_reads_on(tmp_path: Path) -> None:
    append(tmp_path, [entry(n) for n in range(100)])
    scan = reader(tmp_path).scan(Query())
    next(scan)
    assert EmbeddedExpirer(tmp_path).expire(NOON_MS + 99 * DAY_MS, exceptions={"2026-11-23.30d.sqlite": None}) == []
    assert EmbeddedExpirer(tmp_path).expire(NOON_MS + 99 * DAY_MS, exceptions={"2026-11-23.30d.sqlite": 200}) == []
    assert EmbeddedExpirer(tmp_path).expire(NOON_MS + 99 * DAY_MS) == ["2026-11-23.30d.sqlite"]
    assert len(list(scan)) == 99
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_is_ahead_for_a_moment_deletes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    append(tmp_path, [entry(1)])
    up_s = 0.0
    expirer = EmbeddedExpirer(tmp_path, lambda: up_s)
    far_ms = NOON_MS + 40 * DAY_MS
    assert expirer.expire(NOON_MS) == []
    up_s += 3600
    assert expirer.expire(far_ms) == []
    assert "the clock was set ahead" in caplog.text
    up_s += 3600
    assert expirer.expire(NOON_MS + 7_200_000) == []
    assert names(tmp_path) == ["2026-11-23.30d.sqlite"]
    up_s += 40 * DAY_MS / 1000
    assert expirer.expire(far_ms) == ["2026-11-23.30d.sqlite"], "time that has really passed"
    append(tmp_path, [entry(1)])
    assert [expirer.expire(far_ms + 40 * DAY_MS) for _ in range(2)] == [[], ["2026-11-23.30d.sqlite"]], "ahead for good"


def test_a_segment_that_cannot_be_read_is_kept_while_anybody_is_under_a_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    append(tmp_path, [entry(0, organization={"id": "org-0"})], now_ms=0)
    (tmp_path / "1970-01-01.365d.sqlite").touch()  # nothing is in it yet
    path = tmp_path / "1970-01-01.30d.sqlite"
    held, nobody = Policies((Policy(id="org-0", legal_hold=True),), "30d"), Policies((), "30d")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 3")
    assert [segment.organizations for segment in reader(tmp_path).segments()] == [None, {}]
    assert expire(EmbeddedExpirer(tmp_path), reader(tmp_path), held) == ["1970-01-01.365d.sqlite"]
    assert "kept until it can be read" in caplog.text
    assert path.name in caplog.records[-1].getMessage()
    assert expire(EmbeddedExpirer(tmp_path), reader(tmp_path), nobody) == [path.name]


def test_a_file_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    append(tmp_path, [entry(1)])
    path = tmp_path / names(tmp_path)[0]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
    for opened in (open_to_read, open_to_write):
        with pytest.raises(ConfigurationError, match=path.name):
            opened(path)
    with pytest.raises(Unavailable, match="version"):
        append(tmp_path, [entry(2)])


def test_a_segment_that_is_being_made_holds_nothing_and_alarms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    append(tmp_path, [entry(1)])
    with closing(sqlite3.connect(tmp_path / "2026-11-24.30d.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    assert len(reader(tmp_path).search(Query()).hits) == 1
    assert not caplog.records
    with closing(sqlite3.connect(tmp_path / "2026-11-24.30d.sqlite")) as connection:
        connection.execute("CREATE TABLE somebody_else_s (a)")
    assert len(reader(tmp_path).search(Query()).hits) == 1
    assert "not a segment of version" in caplog.text


def test_a_file_that_was_never_made_holds_up_nothing_and_goes_after_its_day(tmp_path: Path) -> None:
    append(tmp_path, [entry(1)])
    (tmp_path / "2026-11-24.30d.sqlite").touch()
    with closing(sqlite3.connect(tmp_path / "2026-11-24.365d.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # as far as a disk that is full then lets a writer come
    later_ms = NOON_MS + 3 * DAY_MS
    verdicts = append(tmp_path, [entry(1), entry(2)], now_ms=later_ms, redelivered=True)
    assert verdicts == [Verdict.DUPLICATE, Verdict.CREATED]
    assert EmbeddedExpirer(tmp_path).expire(NOON_MS + 2 * DAY_MS) == [], "its writer may be about to make it"
    assert EmbeddedExpirer(tmp_path).expire(later_ms) == ["2026-11-24.30d.sqlite", "2026-11-24.365d.sqlite"]
    assert names(tmp_path) == ["2026-11-23.30d.sqlite", "2026-11-26.30d.sqlite"]


def test_a_damaged_segment_of_the_past_is_named_to_who_cannot_store_for_it(tmp_path: Path) -> None:
    append(tmp_path, [entry(1)])
    (tmp_path / "2026-11-23.30d.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(Unavailable, match=r"2026-11-23\.30d\.sqlite") as error:
        append(tmp_path, [entry(2)], now_ms=NOON_MS + DAY_MS, redelivered=True)
    assert "move it away" in error.value.hint


def test_a_damaged_segment_does_not_hide_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    append(tmp_path, [entry(n) for n in range(10)])
    append(tmp_path, [entry(n) for n in range(10, 20)], now_ms=NOON_MS + DAY_MS)
    (tmp_path / "2026-11-23.30d.sqlite").write_bytes(b"not a database" * 1000)
    (tmp_path / "2026-11-23.30d.sqlite-wal").unlink(missing_ok=True)
    (tmp_path / "notes.sqlite").write_bytes(b"somebody else's")
    assert reader(tmp_path).count(Query()) == 10
    assert "2026-11-23.30d.sqlite" in caplog.text


def test_a_search_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    slow = EmbeddedReader(tmp_path, lambda: NOON_MS, timeout_s=0.0)
    append(tmp_path, [entry(n) for n in range(2)])
    with pytest.raises(QueryError, match="too long"):  # between two documents
        slow.count(Query("user_agent.name:*hr?me* AND audit.extra.n:7*"))
    append(tmp_path, [entry(n) for n in range(2, 3000)])
    with pytest.raises(QueryError, match="too long"):  # while SQLite looks for the next one
        slow.count(Query(severities=("critical",)))


def test_a_store_that_cannot_be_written_is_unavailable_and_then_works_again(tmp_path: Path) -> None:
    append(tmp_path, [entry(1)])
    with closing(sqlite3.connect(tmp_path / names(tmp_path)[0])) as other:
        other.execute("BEGIN IMMEDIATE")  # somebody does not let go
        with pytest.raises(Unavailable, match="locked"):
            append(tmp_path, [entry(2)])
    assert append(tmp_path, [entry(2)]) == [Verdict.CREATED]


def test_an_entry_of_which_no_row_can_be_made_is_refused_and_those_beside_it_are_stored(tmp_path: Path) -> None:
    body = entry(1).body
    deep = replace(entry(1), body=body.replace(b'"n":1,', b'"n":%b1%b,' % (b"[" * 5000, b"]" * 5000)))
    other = replace(entry(2), body=b'{"event":1}')
    assert deep.body != body
    verdicts = append(tmp_path, [entry(0), deep, other, entry(3)])
    assert [type(verdict) for verdict in verdicts] == [Verdict, Refused, Refused, Verdict]
    assert "RecursionError" in str(verdicts[1])
    assert reader(tmp_path).count(Query()) == 2


def test_an_error_that_nobody_expected_is_told_and_the_next_block_is_stored(tmp_path: Path) -> None:
    append(tmp_path, [entry(1)])
    path = tmp_path / names(tmp_path)[0]

    def dictionary(data: bytes) -> bytes:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            (before,) = connection.execute("SELECT dictionary FROM codec").fetchone() or (b"",)
            connection.execute("DELETE FROM codec")
            connection.execute("INSERT INTO codec SELECT ? WHERE ? <> x''", (data, data))
        return bytes(before)

    async def work() -> None:
        writer = EmbeddedWriter(tmp_path, lambda: NOON_MS)
        with pytest.raises(Unavailable, match="TypeError"):
            await writer.append([entry(2)], redelivered=False)
        dictionary(before)
        assert await writer.append([entry(2)], redelivered=True) == [Verdict.CREATED]
        await writer.close()

    before = dictionary(b"")
    asyncio.run(work())


def take_away(directory: Path, *, deletes: bool) -> None:
    for path in list(directory.iterdir()):
        if deletes:
            path.unlink()
        else:
            path.rename(path.with_name(path.name + ".damaged"))


@pytest.mark.parametrize("taken", ["deleted", "moved", "replaced"])
def test_nothing_is_acknowledged_into_a_file_that_is_no_longer_in_the_store(tmp_path: Path, taken: str) -> None:
    async def work() -> None:
        writer, other = (EmbeddedWriter(tmp_path, lambda: NOON_MS) for _ in range(2))
        assert await writer.append([entry(1)], redelivered=False) == [Verdict.CREATED]
        take_away(tmp_path, deletes=taken == "deleted")
        if taken == "replaced":
            await other.append([entry(2)], redelivered=False)
        assert await writer.append([entry(3)], redelivered=False) == [Verdict.CREATED]
        expected = {2, 3} if taken == "replaced" else {3}
        for _ in range(2):
            assert {hit.time_ms - START_MS for hit in reader(tmp_path).scan(Query())} == expected
            await writer.close()
            await other.close()

    asyncio.run(work())


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from sample_entries import entry\n"
        "from indexer.store.embedded import EmbeddedWriter\n"
        "async def work():\n"
        "    writer = EmbeddedWriter(Path(sys.argv[1]), lambda: 1_795_435_200_000)\n"
        "    await writer.append([entry(n) for n in range(500)], redelivered=False)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(work())\n"
    )
    tests = str(Path(__file__).parents[1])
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path), tests], check=False, timeout=60).returncode == -9
    assert reader(tmp_path).count(Query()) == 500


def test_a_search_opens_only_the_files_that_its_page_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(5):
        append(tmp_path, [entry(n, time_ms=NOON_MS + day * DAY_MS + n) for n in range(20)], now_ms=NOON_MS + day * DAY_MS)
    searched: list[str] = []
    opened: Callable[[Path], sqlite3.Connection] = open_to_read

    def counting(path: Path) -> sqlite3.Connection:
        searched.append(path.name)
        return opened(path)

    monkeypatch.setattr("indexer.store.embedded.reader.open_to_read", counting)
    page = reader(tmp_path).search(Query(), limit=10)
    assert len(page.hits) == 10
    assert len(searched) == 5 + 1, "each file's span of time, and one file's hits"


@pytest.mark.parametrize("newest_first", [True, False])
def test_few_files_are_open_at_once_however_the_times_of_their_documents_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newest_first: bool
) -> None:
    monkeypatch.setattr("indexer.store.embedded.reader.OPEN_MAX", 2)
    for day in range(6):
        entries = [entry(100 * day + n, time_ms=START_MS + 7 * n + day % 3) for n in range(20)]
        append(tmp_path, entries, now_ms=NOON_MS + day * DAY_MS)
    hits, most = [], 0
    store = reader(tmp_path)
    for hit in store._hits(store._wanted(Query()), newest_first=newest_first):
        hits.append(hit)
        most = max(most, sum(os.path.realpath(each).endswith(".sqlite") for each in Path("/proc/self/fd").iterdir()))
    assert len({hit.id for hit in hits}) == len(hits) == 120
    order = [(hit.time_ms, hit.id) for hit in hits]
    assert [each[0] for each in order] == sorted((each[0] for each in order), reverse=newest_first)
    assert most <= 2


@pytest.mark.parametrize(
    "nested",
    ["wrong AND (", "wrong AND (user.id:nobody OR (", "NOT (NOT (", "wrong AND NOT (user.id:nobody AND NOT ("],
)
def test_a_query_may_be_nested_deeper_than_sqlite_takes(tmp_path: Path, nested: str) -> None:
    append(tmp_path, [entry(n) for n in range(8)])
    for depth in range(1, 60, 4):
        text = f"{nested * depth}organization.id:org-0{')' * nested.count('(') * depth}"
        assert found(tmp_path, text) == meant(tmp_path, text), depth


def found(directory: Path, text: str) -> list[str]:
    return [hit.id for hit in reader(directory).search(Query(text), limit=100).hits]


def meant(directory: Path, text: str) -> list[str]:
    """What is found where nothing narrows the search."""
    test = predicate(parse(text), NOON_MS)
    return [hit.id for hit in reader(directory).search(Query(), limit=100).hits if test(orjson.loads(hit.body))]


@pytest.mark.parametrize(
    "text",
    [
        "Zürich",
        "Zürich wrong",
        "event.reason:(Zürich wrong)",
        "Jürgen password",
        "event.reason:(Jürgen OR wrong)",
        "“wrong” Zürich",
    ],
)
def test_words_with_letters_that_are_not_ascii_are_found_beside_others(tmp_path: Path, text: str) -> None:
    reasons = ("Zürich office", "wrong password", "falsches Passwort für Jürgen", "nothing")
    append(tmp_path, [entry(n, event={"reason": reason}) for n, reason in enumerate(reasons)])
    assert found(tmp_path, text) == meant(tmp_path, text) != []


def test_what_cannot_be_searched_now_is_not_taken_for_nothing(tmp_path: Path) -> None:
    append(tmp_path, [entry(n) for n in range(10)])
    (tmp_path / "2026-11-24.30d.sqlite").mkdir()  # SQLite can open it no more than with all descriptors in use
    for ask in (reader(tmp_path).search, reader(tmp_path).count, lambda query: list(reader(tmp_path).scan(query))):
        with pytest.raises(Unavailable, match=r"2026-11-24\.30d\.sqlite"):
            ask(Query())
    with pytest.raises(Unavailable, match=r"2026-11-24\.30d\.sqlite"):
        reader(tmp_path).sightings([("org-1", "u-1")], since_ms=0, until_ms=NOON_MS, relays=(), timeout_s=9)


def test_a_page_of_large_documents_is_bounded_and_its_cursor_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.store.embedded.reader.PAGE_BYTES_MAX", 50_000)
    entries = [entry(n, event={"original": "x" * (20_000 if n % 3 else 60_000)}) for n in range(9)]
    append(tmp_path, entries)
    cursor, sizes, ids = None, [], list[str]()
    while True:
        page = reader(tmp_path).search(Query(), limit=5, cursor=cursor)
        sizes.append(len(page.hits))
        ids += [hit.id for hit in page.hits]
        if (cursor := page.cursor) is None:
            break
    assert sizes == [2, 1] * 3
    assert ids == [each.id for each in reversed(entries)]
    assert [hit.id for hit in newest(reader(tmp_path), Query(), 5).hits] == ids[:5]
    assert newest(reader(tmp_path), Query(), 9).cursor is None


def of_version_1(path: Path) -> None:
    """Makes a segment what version 1 would have written."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE arrival")
        connection.execute("PRAGMA user_version = 1")


def arrived(directory: Path, since_ms: int, until_ms: int) -> set[int]:
    hits = reader(directory).scan(Query(f"event.ingested:[{since_ms} TO {until_ms}]"))
    return {hit.time_ms - START_MS for hit in hits}


def test_what_arrived_in_a_time_is_found_without_looking_at_the_rest(tmp_path: Path) -> None:
    for minute in range(10):
        append(tmp_path, [entry(n, time_ms=START_MS + minute * 60_000 + n) for n in range(minute * 10, minute * 10 + 10)])
    assert arrived(tmp_path, START_MS + 180_000, START_MS + 239_999) == {180_000 + n for n in range(30, 40)}
    assert len(arrived(tmp_path, START_MS + 180_000, START_MS + 9_000_000)) == 70
    with closing(open_to_read(tmp_path / "2026-11-23.30d.sqlite")) as connection:
        assert connection.execute("SELECT count(*), min(first), max(last) FROM arrival").fetchone() == (10, 1, 100)
        sql = "SELECT * FROM document WHERE number BETWEEN (SELECT min(first) FROM arrival) AND (SELECT max(last) FROM arrival)"
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql} ORDER BY time, id")]
    assert "SEARCH document USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in plan


def test_a_time_of_arrival_in_another_form_is_found_all_the_same(tmp_path: Path) -> None:
    append(tmp_path, [entry(1, event={"ingested": "2026-11-23T20:20:00+02:00"}), entry(2, event={"ingested": None}), entry(3)])
    assert arrived(tmp_path, START_MS, START_MS + 999) == {1, 3}


def test_a_segment_without_arrivals_is_read_and_brought_up_to_date_when_it_is_written_to(tmp_path: Path) -> None:
    append(tmp_path, [entry(n) for n in range(5)])
    of_version_1(tmp_path / "2026-11-23.30d.sqlite")
    assert len(arrived(tmp_path, START_MS, START_MS + 1000)) == 5
    append(tmp_path, [entry(n, time_ms=START_MS + 600_000 + n) for n in range(5, 8)])
    assert len(arrived(tmp_path, START_MS, START_MS + 1000)) == 5
    assert len(arrived(tmp_path, START_MS + 600_000, START_MS + 700_000)) == 3


def test_writers_that_make_a_day_s_file_at_the_same_moment_wait_for_each_other(tmp_path: Path) -> None:
    for day in range(30):
        start = threading.Barrier(6)

        def work(path: Path, start: threading.Barrier = start) -> None:
            start.wait()
            open_to_write(path).close()

        with ThreadPoolExecutor(6) as pool:
            for done in [pool.submit(work, tmp_path / f"{day}.sqlite") for _ in range(6)]:
                done.result()


class Following:
    """A reader that follows, and a writer, with one clock; the cursor is kept as alerting keeps it."""

    def __init__(self, directory: Path) -> None:
        self.now_ms = NOON_MS
        self._directory = directory
        self._reader = EmbeddedReader(directory, lambda: self.now_ms)
        self.cursor: str | None = None

    def put(self, *numbers: int, day: float, retention: str = "30d") -> None:
        self.now_ms = NOON_MS + round(day * DAY_MS)
        append(self._directory, [entry(number, retention=retention) for number in numbers], now_ms=self.now_ms)

    def look(self, *, portions_max: int = 1000) -> list[str]:
        found = []
        looked = self._reader.arrivals(Query(), self.cursor, known=lambda *_: {}, overlap_ms=0)
        for _, each in zip(range(portions_max), looked, strict=False):
            found += [hit.id for hit in each.hits]
            self.cursor = each.cursor
        return found


def ids(*numbers: int) -> list[str]:
    return [entry(number).id for number in numbers]


def test_following_passes_over_no_day_however_long_it_was_away_and_wherever_it_was_interrupted(tmp_path: Path) -> None:
    following = Following(tmp_path)
    following.put(1, day=0)
    assert following.look() == []
    following.put(2, day=0.1)
    following.put(3, day=0.1, retention="90d")
    for day in range(1, 9):
        following.put(3 + day, day=day)
    assert following.look(portions_max=1) == ids(2)  # of a segment whose first event was there when following began
    assert following.look(portions_max=2) == ids(3, 4)
    assert following.look() == ids(*range(5, 12))
    assert following.look() == []


@pytest.mark.parametrize("days", [3650, -3650])
def test_a_clock_that_was_wrong_makes_following_leave_out_nothing_and_give_nothing_twice(tmp_path: Path, days: int) -> None:
    following = Following(tmp_path)
    following.put(1, day=-5)
    following.put(2, day=0)
    following.look()
    following.put(3, day=0)
    assert following.look() == ids(3)
    following.now_ms += days * DAY_MS
    assert following.look() == []
    if days > 0:
        following.put(4, day=days)
        assert following.look() == ids(4)
    for number, day in ((5, 0.1), (6, 0.2), (7, 1), (8, 4)):
        following.put(number, day=day)
        assert following.look() == ids(number)


def test_following_that_began_with_the_future_finds_the_present(tmp_path: Path) -> None:
    following = Following(tmp_path)
    following.put(1, day=3650)
    following.look()
    following.put(2, day=0)
    assert following.look() == ids(2)


def test_what_was_read_to_its_end_is_not_opened_again_and_what_is_gone_not_remembered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    following = Following(tmp_path)
    following.look()
    for day in range(4):
        following.put(day, day=day)
    assert following.look() == ids(*range(4))
    first, second, *_ = sorted(tmp_path.glob("*.sqlite"))
    first.unlink()
    second.write_bytes(b"damaged since")
    assert following.look() == []
    assert not caplog.records
    assert following.cursor is not None
    assert sorted(orjson.loads(following.cursor)) == names(tmp_path)


@pytest.mark.parametrize("away", ["2026-11-25.30d.sqlite", "."])
def test_what_was_away_for_a_moment_is_not_followed_again(tmp_path: Path, away: str) -> None:
    folder, beside = tmp_path / "store", tmp_path / "beside"
    following = Following(folder)
    following.look()
    for day in range(8):
        following.put(day, day=day)
    assert following.look() == ids(*range(8))
    (folder / away).rename(beside)
    assert following.look() == []
    beside.rename(folder / away)
    assert following.look() == []
    following.put(9, day=8)
    assert following.look() == ids(9)


def test_what_cannot_be_followed_now_is_said_when_the_others_were_and_what_is_damaged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    following = Following(tmp_path)
    following.put(1, day=0)
    following.look()
    following.put(2, day=0)
    following.put(3, day=1)
    first, _ = sorted(tmp_path.glob("*.sqlite"))
    first.rename(tmp_path / "away")
    first.mkdir()
    with pytest.raises(Unavailable, match=rf"{first.name}: cannot be searched now"):
        following.look()
    first.rmdir()
    (tmp_path / "away").rename(first)
    assert following.look() == ids(2), "the other was given then"
    following.put(4, day=1)
    _, second = sorted(tmp_path.glob("*.sqlite"))
    second.write_bytes(b"damaged" * 500)
    for _ in range(3):
        assert following.look() == []
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert second.name in caplog.text


def test_what_goes_into_a_file_that_is_taken_away_as_it_is_committed_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(tmp_path, [entry(1)])
    (file,) = tmp_path.glob("*.sqlite")
    real = writer_module._insert

    def insert(*arguments: Any) -> Any:
        done = real(*arguments)
        if len(names(tmp_path)) == 1 and not (tmp_path / "away").exists():
            file.rename(tmp_path / "away")
        return done

    monkeypatch.setattr(writer_module, "_insert", insert)
    assert append(tmp_path, [entry(2)]) == [Verdict.CREATED]
    assert [hit.id for hit in reader(tmp_path).search(Query()).hits] == ids(2)


def test_only_what_is_surely_not_there_is_gone(tmp_path: Path) -> None:
    assert is_gone(tmp_path / "none")
    assert is_gone(tmp_path / "none" / "at all")
    (tmp_path / "loop").symlink_to("loop")
    assert not is_gone(tmp_path / "loop")
    assert not is_gone(tmp_path)


def test_a_portion_of_large_arrivals_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals_module, "PAGE_BYTES_MAX", 100_000)
    following = Following(tmp_path)
    following.look()
    append(tmp_path, [entry(n, message="x" * 30_000) for n in range(20)])
    given = reader(tmp_path).arrivals(Query(), following.cursor, known=lambda *_: {}, overlap_ms=0)
    portions = [[hit.id for hit in each.hits] for each in given]
    assert max(map(len, portions)) <= 4
    assert [hit for portion in portions for hit in portion] == ids(*range(20))
