"""What the detections promise, on every store: the samples of all rules, and alerts that are stored once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sample_entries import START_MS, beyond, decoded, entry, utc
from stores import Store

from indexer.detect.cursor import Cursor
from indexer.detect.detector import Detector
from indexer.detect.networks import Networks
from indexer.detect.ruleset import BUILT_IN, Ruleset
from indexer.detect.samples import load, policies_of
from indexer.document import Entry
from indexer.organizations import Policies, Policy
from indexer.store.contract import Query, Refused, Unavailable, Verdict, Writer

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
POLICIES = Policies((Policy(id="org-long", retention="60d"),), "30d")


class Bench:
    """A store, a clock, and detectors that begin where the last one ended."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.cursor = folder / "state" / "cursor"
        self.now_ms = START_MS

    @contextmanager
    def detector(self, writer: Writer | None = None) -> Iterator[Detector]:
        found = Ruleset.load()
        chosen = writer or self.store.open_writer()
        with closing(
            Detector(
                found,
                self.store.reader,
                writer=chosen,
                cursor=Cursor(self.cursor),
                clock_ms=lambda: self.now_ms,
                policies=POLICIES,
            )
        ) as detector:
            yield detector

    def run(self) -> list[Entry]:
        """One run of a detector of its own, as after a restart."""
        with self.detector() as detector:
            return detector.run_once()

    def alerts(self) -> list[dict[str, Any]]:
        """The stored ones, the oldest first."""
        self.store.refresh()
        return [decoded(hit.body) for hit in self.store.reader.scan(Query(datasets=("alert",)))]

    def login(self, count: int, *, at_ms: int, every_ms: int = 1000, first: int = 0, **changes: Any) -> None:
        """Stores refused logins, which arrived a second ago."""
        subject = {
            "user": {"id": "u-1", "name": "Ada", "full_name": "Ada", "email": "ada@example.com"},
            "source": {"ip": "203.0.113.9", "as": None},
            "organization": {"id": "org-1"},
        }
        event = {"action": "authentication.login", "category": ["authentication"], "outcome": "failure"}
        self.store.append(
            [
                entry(
                    first + n,
                    time_ms=at_ms + n * every_ms,
                    event={**event, "ingested": utc(self.now_ms - 1000)},
                    **{**subject, **changes},
                )
                for n in range(count)
            ]
        )


@pytest.fixture
def bench(store: Store, tmp_path: Path) -> Bench:
    return Bench(store, tmp_path)


@pytest.mark.timeout(400)
def test_every_rule_fires_on_its_samples_and_is_quiet_on_the_others(store: Store) -> None:
    found = Ruleset.load()
    assert not found.problems
    cases = load([BUILT_IN])
    store.append([each for case in cases for each in case.entries])
    wrong: list[str] = []
    for case in cases:
        with closing(
            Detector(found, store.reader, writer=None, cursor=None, clock_ms=lambda: START_MS, policies=policies_of(cases))
        ) as detector:
            wrong += [f"{case.name}: {each}" for each in case.judged(detector.run_over(case.start_ms, case.end_ms))]
    assert wrong == []


def test_a_burst_makes_one_alert_in_words_however_often_it_is_looked_at(bench: Bench) -> None:
    assert bench.run() == [], "nothing is there yet"
    bench.now_ms += MINUTE_MS
    bench.login(23, at_ms=START_MS + 1000)
    found = bench.run()
    alerts = {each["rule"]["id"]: each for each in (decoded(each.body) for each in found)}
    assert set(alerts) == {"failed-login-burst-address", "failed-login-burst-user"}
    alert = alerts["failed-login-burst-user"]
    assert alert["event"]["reason"] == "23 failed logins of ada@example.com in 1 h, the last of them from 203.0.113.9"
    assert alert["event"]["kind"] == "alert"
    assert (alert["audit"]["severity"], alert["event"]["severity"]) == ("critical", 99)
    assert (alert["organization"]["id"], alert["user"]["id"]) == ("org-1", "u-1")
    assert "organizations" not in alert["audit"]["alert"]
    assert alert["source"] == {"ip": "203.0.113.9"}
    assert alert["audit"]["alert"]["count"] == 23
    assert len(alert["audit"]["alert"]["events"]) == 20
    assert (alert["event"]["start"], alert["event"]["end"]) == (utc(START_MS + 1000), utc(START_MS + 23_000))
    assert alert["threat"]["technique"]["id"] == ["T1110.001"]
    assert alert["event"]["ingested"] == utc(bench.now_ms)
    bench.now_ms += MINUTE_MS
    assert bench.run() == [], "the overlap is read again, after a restart"
    bench.login(5, at_ms=START_MS + 62_000, first=100)
    with bench.detector() as detector:
        assert detector.run_once() == []
        bench.now_ms += MINUTE_MS
        assert detector.run_once() == []
    assert len(bench.alerts()) == 2


def test_a_number_beyond_a_double_stops_no_detection(bench: Bench) -> None:
    refused = {"action": "authentication.login", "category": ["authentication"], "ingested": utc(START_MS - 1000)}
    bench.store.append([beyond(98, event=refused, time_ms=START_MS)])
    bench.login(23, at_ms=START_MS + 1000)
    assert "failed-login-burst-user" in {decoded(each.body)["rule"]["id"] for each in bench.run()}


def test_events_are_counted_over_several_runs_of_one_detector_and_over_restarts(bench: Bench) -> None:
    bench.run()
    for turn in range(3):
        bench.now_ms += MINUTE_MS
        bench.login(8, at_ms=bench.now_ms - 30_000, first=100 * turn)
        found = bench.run()
        assert bool(found) == (turn == 2), turn
    with bench.detector() as detector:
        for turn in range(3, 6):
            bench.now_ms += MINUTE_MS
            bench.login(8, at_ms=bench.now_ms - 30_000, first=100 * turn, user={"id": "u-2"}, source={"ip": "192.0.2.7"})
            found = detector.run_once()
            assert bool(found) == (turn == 5), turn


def test_a_crash_between_storing_and_moving_the_cursor_repeats_and_doubles_nothing(bench: Bench) -> None:
    bench.run()
    bench.now_ms += MINUTE_MS
    bench.login(20, at_ms=START_MS)
    before = bench.cursor.read_bytes()
    assert len(bench.run()) == 2
    bench.cursor.write_bytes(before)
    bench.now_ms += MINUTE_MS
    assert bench.run() == []
    assert len(bench.alerts()) == 2


class Failing:
    """A store's writer that fails once it has stored, or before."""

    def __init__(self, writer: Writer, *, stores: bool) -> None:
        self._writer = writer
        self._stores = stores

    async def append(self, entries: Sequence[Entry], *, redelivered: bool) -> Sequence[Verdict | Refused]:
        if self._stores:
            await self._writer.append(entries, redelivered=redelivered)
        raise Unavailable("gone")

    async def ready(self) -> None:
        raise Unavailable("gone")

    async def close(self) -> None:
        await self._writer.close()


@pytest.mark.parametrize("stores", [False, True])
def test_a_store_that_fails_loses_no_alert_and_doubles_none(bench: Bench, stores: bool) -> None:
    bench.run()
    bench.now_ms += MINUTE_MS
    bench.login(20, at_ms=START_MS)
    with bench.detector(Failing(bench.store.open_writer(), stores=stores)) as detector:
        for _ in range(2):
            with pytest.raises(Unavailable):
                detector.run_once()
    bench.run()
    assert len(bench.alerts()) == 2


@pytest.mark.parametrize("store", ["embedded"], indirect=True)  # nothing of it is the store's
def test_while_the_cursor_cannot_be_written_runs_fail_and_the_next_goes_on(bench: Bench) -> None:
    bench.run()
    bench.now_ms += MINUTE_MS
    bench.login(20, at_ms=START_MS)
    beside = bench.cursor.with_name(f".{bench.cursor.name}.new")
    beside.symlink_to("/dev/full")
    with bench.detector() as detector:
        for _ in range(2):
            with pytest.raises(Unavailable, match="No space left on device"):
                detector.run_once()
        beside.unlink()
        detector.run_once()
    assert len(bench.alerts()) == 2


def test_events_that_come_hours_late_are_counted_with_those_of_their_time(bench: Bench) -> None:
    with bench.detector() as detector:
        detector.run_once()
        bench.now_ms += MINUTE_MS
        bench.login(12, at_ms=START_MS, every_ms=2000)
        assert detector.run_once() == []
        bench.now_ms += 5 * HOUR_MS
        while detector.is_behind:
            detector.run_once()
        bench.login(1, at_ms=bench.now_ms - 1000, first=300)  # the group goes on, hours later
        assert detector.run_once() == []
        bench.now_ms += MINUTE_MS
        bench.login(12, at_ms=START_MS + 1000, every_ms=2000, first=100)
        found = detector.run_once()
    assert {decoded(each.body)["audit"]["alert"]["count"] for each in found} == {24}


def test_a_backlog_that_arrives_on_both_sides_of_a_run_is_counted_together(bench: Bench) -> None:
    with bench.detector() as detector:
        detector.run_once()
        bench.now_ms += 5 * HOUR_MS
        while detector.is_behind:
            detector.run_once()
        detector.run_once()
        bench.now_ms += MINUTE_MS
        bench.login(12, at_ms=START_MS, every_ms=2000)
        assert detector.run_once() == []
        bench.now_ms += MINUTE_MS
        bench.login(12, at_ms=START_MS + 1000, every_ms=2000, first=100)
        found = detector.run_once()
    assert {decoded(each.body)["audit"]["alert"]["count"] for each in found} == {24}


@pytest.mark.parametrize("store", ["embedded"], indirect=True)  # nothing of it is the store's
def test_what_happens_after_the_clock_was_ahead_is_found(bench: Bench) -> None:
    with bench.detector() as detector:
        detector.run_once()
        bench.now_ms += 3 * HOUR_MS
        bench.login(1, at_ms=bench.now_ms - 1000, first=1000)
        while detector.is_behind:
            detector.run_once()
        bench.now_ms = START_MS
        found = []
        for minute in range(14):
            bench.now_ms += MINUTE_MS
            for gateway in ("web", "cli") if minute < 6 else ("web",):
                bench.login(1, at_ms=bench.now_ms - 2000, first=2 * minute + (gateway == "cli"), dataset=gateway)
            found += detector.run_once()
    rules = {decoded(each.body)["rule"]["id"] for each in found}
    assert rules == {"gateway-silent", "failed-login-burst-user", "failed-login-burst-address"}


@pytest.mark.parametrize("store", ["embedded"], indirect=True)  # the class is not set up on the other
def test_an_alert_is_kept_as_long_as_its_organisation_s_events(bench: Bench) -> None:
    bench.run()
    bench.now_ms += MINUTE_MS
    bench.login(20, at_ms=START_MS, organization={"id": "org-long"})
    assert {each.retention for each in bench.run()} == {"60d"}


def acted(number: int, ip: str, *, system: int | None, user: str = "u-maker", outcome: str = "success") -> Entry:
    """An event of somebody's, a second after the one before."""
    source = {"ip": ip, "as": {"number": system} if system else None}
    person = {"user": {"id": user}, "organization": {"id": "org-1"}}
    return entry(number, time_ms=START_MS + 1000 * number, source=source, event={"outcome": outcome}, **person)


def test_a_network_is_known_to_whoever_succeeded_from_it_however_much_they_did_since(store: Store) -> None:
    since = [acted(number, "198.51.100.1", system=64497) for number in range(10, 1210)]
    store.append(
        [
            acted(0, "203.0.113.9", system=64496),
            acted(1, "192.0.2.9", system=64498, outcome="failure"),
            acted(2, "203.0.113.9", system=64499, user="u-other"),
            acted(3, "2001:db8::9", system=None),
            *since,
            acted(2000, "203.0.113.10", system=64500),
        ]
    )
    maker, now_ms = ("org-1", "u-maker"), START_MS + 1_500_000

    def has(*networks: str, before_ms: int = now_ms) -> list[bool]:
        known = Networks(store.reader)
        return [known.has(maker, network, before_ms) for network in networks]

    assert has("AS64496", "AS64497") == [True, True], "more than a thousand events ago, and just now"
    assert has("AS64498", "AS64499", "AS64500") == [False] * 3, "refused there; somebody else; only later"
    assert has("AS64496", before_ms=START_MS + 31 * 24 * HOUR_MS) == [False], "more than thirty days ago"
    assert has("AS64496", before_ms=START_MS) == [True], "in the same moment"


def test_a_network_without_a_number_is_looked_for_by_its_addresses(store: Store) -> None:
    store.append(
        [
            acted(0, "203.0.113.9", system=None),
            acted(1, "2001:db8::9", system=None),
            acted(2, "192.0.2.9", system=None, outcome="failure"),
        ]
    )
    known = Networks(store.reader)
    networks = ("203.0.113.0/24", "2001:db8::/48", "192.0.2.0/24", "198.51.100.0/24")
    assert [known.has(("org-1", "u-maker"), each, START_MS + HOUR_MS) for each in networks] == [True, True, False, False]


def test_an_alert_over_several_organisations_names_them_to_who_may_see_everything(bench: Bench) -> None:
    bench.run()
    bench.now_ms += MINUTE_MS
    for number, organization in enumerate(("org-1", "org-2", "org-3")):
        people = {"id": f"u-{number}", "name": f"Person {number}"}
        bench.login(8, at_ms=START_MS + number, first=100 * number, organization={"id": organization}, user=people)
    bench.run()
    (alert,) = (each for each in bench.alerts() if each["rule"]["id"] == "failed-login-burst-address")
    assert "organization" not in alert
    assert sorted(alert["audit"]["alert"]["organizations"]) == ["org-1", "org-2", "org-3"]

    def found(text: str = "", *organizations: str) -> int:
        return bench.store.reader.count(Query(text, datasets=("alert",), organizations=organizations))

    assert found("audit.alert.organizations:ORG-2") == 1
    assert found() == len(bench.alerts())
    for limited in (("org-1",), ("org-1", "org-2", "org-3")):
        assert found("", *limited) == found("audit.alert.organizations:*", *limited) == 0


def test_a_rule_over_rules_names_what_all_their_events_agree_in(bench: Bench) -> None:
    bench.run()
    bench.now_ms += MINUTE_MS
    for number in range(30):
        organization = {"id": f"org-{number % 3}", "name": f"Organisation {number % 3}"}
        bench.login(1, at_ms=START_MS + number * 1000, first=number, organization=organization, user={"id": f"u-{number}"})
    bench.run()
    (alert,) = (each for each in bench.alerts() if each["rule"]["id"] == "credential-stuffing")
    assert sorted(alert["audit"]["alert"]["organizations"]) == ["org-0", "org-1", "org-2"]
    assert (alert["source"], "organization" in alert, "user" in alert) == ({"ip": "203.0.113.9"}, False, False)
    assert bench.store.reader.count(Query(datasets=("alert",), organizations=("org-0",))) == 0


def test_alerts_are_found_by_their_own_fields(bench: Bench) -> None:
    bench.run()
    bench.now_ms += MINUTE_MS
    bench.login(20, at_ms=START_MS)
    bench.run()
    bench.store.refresh()

    def count(text: str) -> int:
        return bench.store.reader.count(Query(text, datasets=("alert",)))

    assert count("rule.id:failed-login-burst-user AND threat.technique.id:T1110.001") == 1
    assert count("audit.severity:critical AND event.kind:alert AND audit.alert.count:>=20") == 2
    assert count('event.reason:"failed logins of ada"') == 1
    assert count('rule.name:"burst of failed logins of one user"') == 1
    assert bench.store.reader.count(Query()) == 20, "alerts are not among the events"
