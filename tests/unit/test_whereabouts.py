"""Promises of unusual locations at ingest: on the embedded store, with real location databases, through the real pipeline."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from support import header

from auditship.block import CHAIN_START, chain_next, digest
from indexer import whereabouts as module
from indexer.assemble import builder_of
from indexer.document import Entry
from indexer.enrich import demo_database
from indexer.enrich.habits import DAY_MS, WarmUp
from indexer.enrich.location import Places
from indexer.pipeline import Pipeline
from indexer.settings import EnrichmentSettings
from indexer.store.contract import Person, Query, Refused, Sightings, Unavailable, Verdict
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter
from indexer.store.embedded.segment import segments
from indexer.watch import FAILED_FRESH_MS, FRESH_MS, KEEP_MS
from indexer.whereabouts import Whereabouts

NOW_MS = 1_795_458_000_000
MINUTE_MS = 60_000
BERLIN, BERLIN_2, LISBON, SAO_PAULO, NOWHERE = "203.0.113.7", "203.0.113.40", "203.0.113.200", "198.51.100.200", "10.0.0.1"
RELAY = "198.51.100.130"
"""In Toronto, of a network that is a relay."""
RULE = WarmUp(days=7, events=50)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms

    def later(self, ms: int) -> None:
        self.now_ms += ms


class Asked(EmbeddedReader):
    """Counts questions, and may be out of order."""

    people: list[Sequence[Person]]
    trouble: Exception | None = None
    gate: threading.Event | None = None

    def sightings(self, people: Sequence[Person], **more: Any) -> dict[Person, Sightings]:
        self.people.append(list(people))
        assert threading.current_thread() is not threading.main_thread()
        if self.gate:
            assert self.gate.wait(20)
        if self.trouble:
            raise self.trouble
        return super().sightings(people, **more)


class Worker:
    """An indexer's worker, as far as blocks go."""

    def __init__(self, folder: Path, clock: Clock, *, rule: WarmUp = RULE, wait_s: float = 10.0) -> None:
        asn = _networks(folder)
        self.clock = clock
        self.store = folder / "store"
        places = Places(demo_database.path(), asn, 100, relays=frozenset({64500}))
        self.builder = builder_of(EnrichmentSettings(), places, retention="30d")
        self.reader = Asked(self.store, clock)
        self.reader.people = []
        self.counts: Counter[str] = Counter()
        self.whereabouts = Whereabouts(self.reader, rule, frozenset({64500}), clock=clock, count=self.count, wait_s=wait_s)
        self.offset = 1
        self.writer_trouble: Exception | None = None

    def count(self, counts: Mapping[str, int]) -> None:
        self.counts.update(counts)

    async def append(self, entries: Sequence[Entry], *, redelivered: bool) -> Sequence[Verdict | Refused]:
        if self.writer_trouble:
            raise self.writer_trouble
        writer = EmbeddedWriter(self.store, self.clock)
        try:
            return await writer.append(entries, redelivered=redelivered)
        finally:
            await writer.close()

    async def ready(self) -> None: ...

    async def close(self) -> None: ...

    async def take_all(self, blocks: Sequence[Sequence[dict[str, Any]]], *, redelivered: bool = False) -> list[dict[str, Any]]:
        """Takes blocks one after another; the documents in the order of the lines, as they are stored."""
        pipeline = Pipeline(self.builder, self, whereabouts=self.whereabouts, clock=self.clock)
        for events in blocks:
            data = b"".join(json.dumps(event).encode() + b"\n" for event in events)
            hashed = digest(data)
            head = header(
                data, offset=self.offset, digest=hashed, chain=chain_next(CHAIN_START, hashed), redelivered=redelivered
            )
            await pipeline.take(head, data, sender="gw-1", organizations=frozenset())
            self.offset += len(data)
        return documents(self.store, self.clock)

    def take(self, *events: dict[str, Any], redelivered: bool = False) -> list[dict[str, Any]]:
        """Takes one block; the documents of its events as they are stored, in order."""
        stored = {each["audit"]["extra"]["n"]: each for each in asyncio.run(self.take_all([events], redelivered=redelivered))}
        return [stored[event["n"]] for event in events]


def documents(store: Path, clock: Clock) -> list[dict[str, Any]]:
    return [json.loads(hit.body) for hit in EmbeddedReader(store, clock).search(Query(), limit=1000).hits]


def _networks(folder: Path) -> Path:
    """An ASN database for the demo's addresses."""
    path = folder / "asn.mmdb"
    if not path.exists():
        writer = MMDBWriter(6, "test-asn", ipv4_compatible=True)
        for network, number, name in (
            ("203.0.113.0/27", 64496, "Fibre"),
            ("203.0.113.32/27", 64497, "Mobile"),
            ("203.0.113.192/26", 64498, ""),
            ("198.51.100.128/26", 64500, "A relay"),
        ):
            record = {"autonomous_system_number": number} | ({"autonomous_system_organization": name} if name else {})
            writer.insert_network(IPSet([network]), record)
        writer.to_db_file(str(path))
    return path


_number = iter(range(1_000_000))


def event(ip: str, time_ms: int, **more: Any) -> dict[str, Any]:
    """An action of Ada's."""
    return {
        "timestamp": time_ms,
        "organization": {"id": "org-1"},
        "actor": {"type": "user", "id": "ada"},
        "action": "project.read",
        "resource": {"type": "project"},
        "status": "success",
        "ip": ip,
        "n": next(_number),
        **more,
    }


def told(document: dict[str, Any]) -> tuple[set[str], str, str | None]:
    return set(document.get("tags", ())), document["audit"]["severity"], document["event"].get("reason")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def worker(tmp_path: Path, clock: Clock) -> Worker:
    """One whose store has Ada in Berlin, eight days ago and an hour ago."""
    made = Worker(tmp_path, clock)
    past = made.take(event(BERLIN, NOW_MS - 8 * DAY_MS), event(BERLIN, NOW_MS - 60 * MINUTE_MS))
    assert [told(each)[0] for each in past] == [set(), set()]
    return Worker(tmp_path, clock)


def test_a_new_country_is_a_warning_and_told_once(worker: Worker) -> None:
    first, second = worker.take(event(SAO_PAULO, NOW_MS - 2), event(SAO_PAULO, NOW_MS - 1))
    assert told(first) == (
        {"new_country", "impossible_travel"},
        "warning",
        "first time from Brazil in 30 days; impossible journey: 10,253 km from Berlin in 59 min",
    )
    assert (first["event"]["severity"], first["log"]["level"]) == (47, "warning")
    assert told(second) == (set(), "info", None)
    assert worker.counts == {"new_country": 1, "impossible_travel": 1}


def test_a_new_network_is_told_but_no_warning(worker: Worker) -> None:
    (found,) = worker.take(event(BERLIN_2, NOW_MS))
    assert told(found) == ({"new_network"}, "info", "first time from Mobile (AS64497) in 30 days")


def test_the_lines_own_reason_comes_first_and_critical_stays(worker: Worker) -> None:
    login = {"action": "authentication.login", "status": "failure", "reason": "wrong password"}
    (found,) = worker.take(event(SAO_PAULO, NOW_MS, **login))
    assert told(found) == (
        {"new_country"},
        "critical",
        "wrong password; failed authentication; no success from Brazil in 30 days",
    )
    (found,) = worker.take(event(SAO_PAULO, NOW_MS - 1, action="project.delete"))
    assert told(found)[2].startswith("deleted; first time from Brazil in 30 days; impossible journey: ")  # type: ignore[union-attr]


def test_tokens_and_what_has_no_place_are_not_judged(worker: Worker) -> None:
    token = event(SAO_PAULO, NOW_MS, actor={"type": "api_token", "id": "ada"})
    found = worker.take(token, event(NOWHERE, NOW_MS), {**event("", NOW_MS), "ip": None})
    assert [told(each)[0] for each in found] == [set()] * 3
    assert worker.reader.people == []


def test_a_new_actor_and_a_new_installation_are_not_told(tmp_path: Path, clock: Clock) -> None:
    found = Worker(tmp_path, clock).take(
        event(BERLIN, NOW_MS - 6 * DAY_MS), event(SAO_PAULO, NOW_MS - 2 * DAY_MS), event(LISBON, NOW_MS)
    )
    assert [told(each)[0] for each in found] == [set()] * 3


def test_a_journey_needs_no_warm_up_and_a_relay_makes_none(tmp_path: Path, clock: Clock) -> None:
    worker = Worker(tmp_path, clock)
    found = worker.take(
        event(BERLIN, NOW_MS - 50 * MINUTE_MS),
        event(RELAY, NOW_MS - 45 * MINUTE_MS),
        event(BERLIN, NOW_MS - 40 * MINUTE_MS),
        event(LISBON, NOW_MS - 10 * MINUTE_MS, status="failure"),
        event(LISBON, NOW_MS),
    )
    assert [told(each)[0] for each in found] == [set(), set(), set(), set(), {"impossible_travel"}]
    restarted = Worker(tmp_path, clock)
    assert told(restarted.take(event(RELAY, NOW_MS + 1))[0])[0] == set()
    clock.later(10 * MINUTE_MS)
    assert told(restarted.take(event(BERLIN, NOW_MS + 10 * MINUTE_MS))[0])[0] == {"impossible_travel"}


def test_after_a_restart_it_knows_what_it_knew(worker: Worker, tmp_path: Path, clock: Clock) -> None:
    worker.take(event(SAO_PAULO, NOW_MS))
    clock.later(24 * 60 * MINUTE_MS)
    restarted = Worker(tmp_path, clock)
    found = restarted.take(event(SAO_PAULO, clock.now_ms), event(LISBON, clock.now_ms + 1))
    assert [told(each)[0] for each in found] == [set(), {"new_country", "new_network", "impossible_travel"}]


def test_thirty_days_later_a_country_is_new_again(worker: Worker, clock: Clock) -> None:
    worker.take(event(LISBON, NOW_MS))
    for days in (10, 20, 30):
        clock.now_ms = NOW_MS + days * DAY_MS
        worker.take(event(BERLIN, clock.now_ms))
    clock.now_ms = NOW_MS + 31 * DAY_MS
    assert told(worker.take(event(LISBON, clock.now_ms))[0]) == (
        {"new_country", "new_network"},
        "warning",
        "first time from Portugal in 30 days; first time from AS64498 in 30 days",
    )


def test_one_question_for_a_block_and_none_for_the_next(worker: Worker) -> None:
    people = [f"person-{number}" for number in range(40)]
    events = [event(BERLIN, NOW_MS - number, actor={"type": "user", "id": name}) for number, name in enumerate(people * 3)]
    worker.take(*events)
    assert [len(asked) for asked in worker.reader.people] == [40]
    worker.take(*(event(BERLIN, NOW_MS, actor={"type": "user", "id": name}) for name in people))
    assert len(worker.reader.people) == 1


def test_many_attempts_from_far_away_ask_once_a_minute(worker: Worker, clock: Clock) -> None:
    for _ in range(10):
        (found,) = worker.take(event(SAO_PAULO, clock.now_ms, action="authentication.login", status="failure"))
        assert told(found)[0] == {"new_country"}
        clock.later(FAILED_FRESH_MS // 5)
    assert len(worker.reader.people) == 2


def test_what_is_remembered_is_read_again_in_time(worker: Worker, clock: Clock) -> None:
    worker.take(event(BERLIN, NOW_MS))
    clock.later(KEEP_MS)
    worker.take(event(BERLIN, clock.now_ms))
    assert len(worker.reader.people) == 1
    clock.later(1)
    worker.take(event(BERLIN, clock.now_ms))
    assert len(worker.reader.people) == 2


def test_two_workers_tell_it_once_and_neither_misses_a_journey(worker: Worker, tmp_path: Path, clock: Clock) -> None:
    other = Worker(tmp_path, clock)
    other.offset = worker.offset + 100_000
    other.take(event(BERLIN, NOW_MS))
    worker.take(event(BERLIN, NOW_MS))
    clock.later(FRESH_MS + 1)
    assert "new_country" in told(worker.take(event(SAO_PAULO, clock.now_ms))[0])[0]
    clock.later(FRESH_MS + 1)
    assert told(other.take(event(SAO_PAULO, clock.now_ms))[0])[0] == set(), "it looked again, and the other one had told it"
    clock.later(60 * MINUTE_MS - 4 * FRESH_MS)
    worker.take(event(SAO_PAULO, clock.now_ms))
    clock.later(30 * MINUTE_MS)
    found = told(other.take(event(BERLIN, clock.now_ms))[0])
    assert found[0] == {"impossible_travel"}
    assert found[2] == "impossible journey: 10,253 km from São Paulo in 30 min", "from where the other worker saw her last"


def test_what_both_see_at_once_both_tell(worker: Worker, tmp_path: Path, clock: Clock) -> None:
    other = Worker(tmp_path, clock)
    other.offset = worker.offset + 100_000
    for each in (worker, other):
        each.take(event(BERLIN, NOW_MS))
    for each in (worker, other):
        assert "new_country" in told(each.take(event(SAO_PAULO, NOW_MS))[0])[0]


def test_a_block_that_comes_again_is_judged_as_if_it_came_first(worker: Worker, tmp_path: Path, clock: Clock) -> None:
    events = [event(SAO_PAULO, NOW_MS - 1), event(SAO_PAULO, NOW_MS)]
    offset = worker.offset
    worker.writer_trouble = Unavailable("no room")
    for _ in range(2):
        with pytest.raises(Unavailable):
            worker.take(*events)
        worker.offset = offset
    assert worker.counts == {}
    worker.writer_trouble = None
    assert [bool(told(each)[0]) for each in worker.take(*events, redelivered=True)] == [True, False]

    other = Worker(tmp_path, clock)
    other.offset = offset + len(json.dumps(events[0])) + 1
    late = event(SAO_PAULO, NOW_MS - 2)
    other.take(events[1], redelivered=True)
    assert told(other.take(late)[0])[0] == {"new_country", "impossible_travel"}, "older than what is stored: told, however late"


def test_a_block_of_which_a_later_part_is_stored_is_still_told(worker: Worker, tmp_path: Path, clock: Clock) -> None:
    first, second = event(SAO_PAULO, NOW_MS - 5 * MINUTE_MS), event(SAO_PAULO, NOW_MS)
    offset = worker.offset
    worker.offset += len(json.dumps(first)) + 1
    worker.whereabouts.rule = WarmUp(days=365, events=1 << 30)  # stored without a word, as of an attempt that broke off
    worker.take(second)
    other = Worker(tmp_path, clock)
    other.offset = offset
    found = other.take(first, second, redelivered=True)
    assert told(found[0])[0] == {"new_country", "impossible_travel"}


def test_lines_that_the_store_refuses_teach_nothing(worker: Worker) -> None:
    refusals: list[Verdict | Refused] = [Refused("too deep")]
    append = worker.append

    async def refuse(entries: Sequence[Entry], *, redelivered: bool) -> Sequence[Verdict | Refused]:
        return [refusals.pop()] if refusals else await append(entries, redelivered=redelivered)

    worker.append = refuse  # type: ignore[method-assign]
    asyncio.run(worker.take_all([[event(SAO_PAULO, NOW_MS - 1)]]))
    assert "new_country" in told(worker.take(event(SAO_PAULO, NOW_MS))[0])[0]


def test_a_store_that_cannot_answer_stops_nothing(worker: Worker) -> None:
    worker.reader.trouble = Unavailable("no answer")
    (found,) = worker.take(event(SAO_PAULO, NOW_MS))
    assert told(found) == ({"location_unchecked"}, "info", None)
    assert worker.counts == {"location_unchecked": 1}

    async def both() -> None:
        await worker.take_all([[event(SAO_PAULO, NOW_MS)], [event(SAO_PAULO, NOW_MS)]])

    asked = len(worker.reader.people)
    asyncio.run(both())
    assert len(worker.reader.people) - asked <= 1, "it is left in peace for a while"


def test_a_store_that_takes_too_long_is_not_waited_for_but_listened_to(worker: Worker) -> None:
    worker.whereabouts._wait_s = 0.05
    gate = worker.reader.gate = threading.Event()

    async def work() -> list[dict[str, Any]]:
        await worker.take_all([[event(SAO_PAULO, NOW_MS - 1)]])
        gate.set()
        while worker.whereabouts.get(("org-1", "ada")) is None:  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0.01)
        return await worker.take_all([[event(LISBON, NOW_MS)]])

    first, second = asyncio.run(work())[1::-1]
    assert told(first)[0] == {"location_unchecked"}
    assert "new_country" in told(second)[0]
    assert len(worker.reader.people) == 1


def test_many_blocks_at_once_on_a_fresh_worker_are_all_checked(worker: Worker) -> None:
    pipeline = Pipeline(worker.builder, worker, whereabouts=worker.whereabouts, clock=worker.clock)

    async def take(number: int) -> None:
        data = json.dumps(event(BERLIN, NOW_MS, actor={"type": "user", "id": f"p-{number}"})).encode() + b"\n"
        hashed = digest(data)
        head = header(data, offset=1000 * number, digest=hashed, chain=chain_next(CHAIN_START, hashed))
        await pipeline.take(head, data, sender="gw-1", organizations=frozenset())

    async def all_of_them() -> None:
        await asyncio.gather(*(take(number) for number in range(1, 41)))

    asyncio.run(all_of_them())
    assert len(worker.reader.people) == 40
    assert worker.counts == {}


def test_ids_that_no_store_finds_are_told_as_unchecked(worker: Worker) -> None:
    (found,) = worker.take(event(BERLIN, NOW_MS, actor={"type": "user", "id": "x" * 1025}))
    assert told(found)[0] == {"location_unchecked"}
    assert worker.reader.people == []


def test_clocks_that_are_wrong(worker: Worker) -> None:
    (future,) = worker.take(event(SAO_PAULO, NOW_MS + 400 * DAY_MS))
    assert "new_country" in told(future)[0]
    (present,) = worker.take(event(SAO_PAULO, NOW_MS))
    assert "new_country" in told(present)[0], "an event of next year makes no habit"
    (ahead,) = worker.take(event(SAO_PAULO, NOW_MS + MINUTE_MS // 2))
    assert told(ahead)[0] == set()
    (ancient,) = worker.take(event(LISBON, NOW_MS - 400 * DAY_MS))
    assert told(ancient)[0] == set()


def test_memory_is_bounded(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACTORS_MAX", 10)
    worker.take(*(event(BERLIN, NOW_MS, actor={"type": "user", "id": f"p-{number}"}) for number in range(50)))
    assert len(worker.whereabouts._habits) == 10


@pytest.mark.usefixtures("worker")
def test_a_segment_of_an_elder_version_is_asked_too(tmp_path: Path, clock: Clock) -> None:
    for name in segments(tmp_path / "store"):
        connection = sqlite3.connect(name.path)
        connection.execute("DROP TABLE seen")
        connection.close()
    other = Worker(tmp_path, clock)
    found = other.take(event(BERLIN, NOW_MS - 1), event(SAO_PAULO, NOW_MS))
    assert [told(each)[0] for each in found] == [set(), {"new_country", "impossible_travel"}]


def test_close_waits_for_no_store(worker: Worker) -> None:
    gate = worker.reader.gate = threading.Event()
    worker.whereabouts._wait_s = 0.01

    async def work() -> None:
        await worker.take_all([[event(BERLIN, NOW_MS)]])
        await worker.whereabouts.close()
        assert not gate.is_set()

    try:
        asyncio.run(work())
    finally:
        gate.set()
    assert not worker.whereabouts._under_way
