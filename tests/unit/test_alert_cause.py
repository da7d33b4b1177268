"""What is worth telling: a model of all that can happen to causes, and examples."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from indexer.alerts.cause import CAUSES_PER_KIND_MAX, CAUSES_PER_ORGANIZATION_MAX, GROWTH, Cause, Causes, Telling, key_of
from indexer.alerts.event import Event
from indexer.alerts.message import Links, message_of

QUIET_S, UPDATE_S = 900.0, 60.0
START_MS = 1_795_458_000_000


def event(number: int = 0, **changes: object) -> Event:
    values: dict[str, object] = {
        "id": f"e{number}",
        "dataset": "web",
        "ingested_ms": START_MS,
        "timestamp": "2026-11-23T18:20:00Z",
        "severity": "critical",
        "organization": "org-1",
        "actor_id": "u-1",
        "action": "secret.read",
        "outcome": "success",
    }
    return Event(**{**values, **changes})  # type: ignore[arg-type]


class Machine(RuleBasedStateMachine):
    """Events and time in any order, the process dying now and then; what was told is held against what has happened."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = START_MS
        self.number = 0
        self.kept: dict[str, Cause] = {}
        self.causes = Causes(quiet_s=QUIET_S, update_s=UPDATE_S)
        self.tellings: list[tuple[int, Telling]] = []
        self.happened = 0
        self.last_ms: dict[tuple[str, ...], int] = {}

    def _told(self, tellings: list[Telling]) -> None:
        self.tellings += [(self.now_ms, telling) for telling in tellings]
        for identity, cause in self.causes.changed.items():
            if cause is None:
                self.kept.pop(identity, None)
            else:
                self.kept[identity] = Cause(**{name: getattr(cause, name) for name in Cause.__struct_fields__})
        self.causes.changed.clear()

    @rule(actors=st.lists(st.integers(0, 60), min_size=1, max_size=40))
    def events_arrive(self, actors: list[int]) -> None:
        events = []
        for actor in actors:
            self.number += 1
            events.append(event(self.number, actor_id=f"u-{actor}"))
        tellings = self.causes.take(events, self.now_ms)
        self._told(tellings)
        self.happened += len(events)
        told_now = {telling.cause.key for telling in tellings if telling.kind == "alert"}
        for each in events:
            own, many = key_of(each), (*key_of(each)[:3], "many")
            key = own if own in told_now or own in self.last_ms else many
            was_ms = self.last_ms.get(key)
            if was_ms is None or self.now_ms - was_ms >= QUIET_S * 1000:
                assert key in told_now, "a new cause was not told at once"
        for cause in self.kept.values():
            self.last_ms[cause.key] = cause.last_ms

    @rule(seconds=st.sampled_from([0.3, 1, 59, 60, 61, 300, 899, 900, 2000, 90_000]))
    def time_passes(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)
        self._told(self.causes.tick(self.now_ms))
        open_keys = {cause.key for cause in self.kept.values()}
        self.last_ms = {key: at for key, at in self.last_ms.items() if key in open_keys}

    @rule()
    def the_process_dies(self) -> None:
        self.causes = Causes(self.kept.values(), quiet_s=QUIET_S, update_s=UPDATE_S)
        self.kept = {cause.id: Cause(**{n: getattr(cause, n) for n in Cause.__struct_fields__}) for cause in self.kept.values()}

    @invariant()
    def everything_is_counted_once(self) -> None:
        ended: dict[str, int] = {}
        for _, telling in self.tellings:
            ended[telling.cause.id] = telling.cause.count
        for cause in self.kept.values():
            ended[cause.id] = cause.count
        assert sum(ended.values()) == self.happened

    @invariant()
    def nothing_is_told_too_often(self) -> None:
        by_cause: dict[str, list[tuple[int, Telling]]] = {}
        for at, telling in self.tellings:
            by_cause.setdefault(telling.cause.id, []).append((at, telling))
        for found in by_cause.values():
            assert [telling.number for _, telling in found] == list(range(1, len(found) + 1))
            assert [telling.kind for _, telling in found].count("alert") == 1
            assert found[0][1].kind == "alert"
            for (before_ms, before), (at_ms, after) in pairwise(found):
                if after.kind == "growth":
                    assert at_ms - before_ms >= UPDATE_S * 1000
                    assert after.cause.count >= GROWTH * before.cause.count or at_ms - before_ms >= 86_400_000

    @invariant()
    def it_is_bounded(self) -> None:
        assert len(self.causes) <= CAUSES_PER_KIND_MAX + 1


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_burst_is_one_alert_with_its_count() -> None:
    causes = Causes(quiet_s=QUIET_S, update_s=UPDATE_S)
    tellings = causes.take([event(number) for number in range(37)], START_MS)
    assert [(telling.kind, telling.cause.count) for telling in tellings] == [("alert", 37)]
    assert causes.take([event(number) for number in range(37, 400)], START_MS + 5000) == []
    assert [(each.kind, each.cause.count) for each in causes.tick(START_MS + 60_000)] == [("growth", 400)]
    causes.take([event(401)], START_MS + 61_000)
    assert causes.tick(START_MS + 900_000) == []
    assert [(each.kind, each.cause.count) for each in causes.tick(START_MS + 961_000)] == [("end", 401)]
    assert [each.kind for each in causes.take([event(402)], START_MS + 962_000)] == ["alert"]


def test_failed_log_ins_are_one_cause_for_each_address_whatever_name_was_claimed() -> None:
    login = {"action": "authentication.login", "outcome": "failure", "is_login": True}
    causes = Causes(quiet_s=QUIET_S, update_s=UPDATE_S)
    sprayed = [event(number, actor_id=f"u-{number}", ip="203.0.113.7", **login) for number in range(500)]
    assert [telling.cause.count for telling in causes.take(sprayed, START_MS)] == [500]


def test_a_spray_of_names_and_addresses_ends_in_one_cause_for_many() -> None:
    causes = Causes(quiet_s=QUIET_S, update_s=UPDATE_S)
    tellings = causes.take([event(number, actor_id=f"u-{number}") for number in range(5000)], START_MS)
    assert len(tellings) == CAUSES_PER_KIND_MAX + 1
    assert sum(telling.cause.count for telling in tellings) == 5000


def test_an_organization_with_too_many_kinds_of_causes_hides_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    causes = Causes(quiet_s=QUIET_S, update_s=UPDATE_S)
    flood = [event(number, action=f"a{number}") for number in range(CAUSES_PER_ORGANIZATION_MAX + 500)]
    tellings = causes.take(flood, START_MS)
    assert len(tellings) == CAUSES_PER_ORGANIZATION_MAX + 1
    assert tellings[-1].cause.count == 500
    other = causes.take([event(-1, organization="org-2")], START_MS)
    assert [telling.cause.key[1] for telling in other] == ["org-2"]
    monkeypatch.setattr("indexer.alerts.cause.CAUSES_MAX", 300)
    many = causes.take([event(-number, organization=f"org-{number}") for number in range(3, 500)], START_MS)
    assert len(causes) == 301
    assert many[-1].cause.key == ("many", "critical", "many")
    assert message_of(many[-1], Links()).organization == ""


def test_an_organization_may_be_called_many() -> None:
    causes = Causes(quiet_s=QUIET_S, update_s=UPDATE_S)
    flood = [event(number, action=f"a{number}", organization="many") for number in range(CAUSES_PER_ORGANIZATION_MAX + 2)]
    assert {message_of(telling, Links()).organization for telling in causes.take(flood, START_MS)} == {"many"}


@pytest.mark.parametrize("restarts", [False, True])
def test_a_clock_that_was_ahead_lets_causes_grow_and_end_all_the_same(restarts: bool) -> None:
    causes = Causes(quiet_s=QUIET_S, update_s=UPDATE_S)
    causes.take([event(0)], START_MS + 365 * 86_400_000)
    if restarts:
        causes = Causes(filter(None, causes.changed.values()), quiet_s=QUIET_S, update_s=UPDATE_S)
    assert causes.take([event(number) for number in range(1, 20)], START_MS) == []
    (growth,) = causes.tick(START_MS + 60_000)
    assert (growth.kind, growth.cause.count) == ("growth", 20)
    assert causes.tick(START_MS + 900_000) == []
    assert len(causes) == 0
    assert [telling.kind for telling in causes.take([event(21)], START_MS + 901_000)] == ["alert"]


def test_detections_are_grouped_by_rule_and_subject() -> None:
    causes = Causes(quiet_s=QUIET_S, update_s=UPDATE_S)
    found = [event(number, rule_id=f"r{number % 2}", actor_id=f"u-{number % 3}") for number in range(12)]
    assert sorted(telling.cause.count for telling in causes.take(found, START_MS)) == [2] * 6
