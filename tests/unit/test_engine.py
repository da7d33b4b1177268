"""Promises of the counting: windows, order, lateness, bounds. Pure: no store."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from indexer.detect import engine as engine_module
from indexer.detect.check import World
from indexer.detect.engine import Engine, Hit, Late
from indexer.detect.event import Event, common, organizations
from indexer.detect.ruleset import Ruleset
from indexer.detect.silence import MINUTE_MS, Heard

HOUR_MS = 3_600_000
WORLD = World(lambda _: (), lambda *_: False)
LOGSOURCE = {"product": "auditship", "service": "audit"}


def rules(folder: Path, **correlations: Mapping[str, Any]) -> Ruleset:
    """Rules over the events ``a`` and ``b``: these correlations, and no built-in one."""
    documents: list[dict[str, Any]] = [
        {"title": n, "name": n, "logsource": LOGSOURCE, "detection": {"x": {"event.action": n}, "condition": "x"}} for n in "ab"
    ]
    for name, correlation in correlations.items():
        ours = dict(correlation)
        auditship = ours.pop("auditship", {})
        whole = {"group-by": ["user.id"], "timespan": "1h", **ours}
        documents.append({"title": name, "name": name, "correlation": whole, "auditship": auditship})
    (folder / "r.yml").write_text("---\n".join(yaml.safe_dump(each, sort_keys=False) for each in documents))
    found = Ruleset.load(folder)
    assert found.problems == ()
    return found.only(list(correlations))


def event(time_ms: int, user: str = "u", **facts: str) -> Event:
    return Event(time_ms, f"{time_ms}-{user}-{sorted(facts.items())}", {"user.id": user, **facts})


def found(engine: Engine) -> list[tuple[str, int]]:
    return [(hit.about.name, hit.total) for hit in engine.take()]


COUNT = {"type": "event_count", "rules": ["a"], "condition": {"gte": 3}}
VALUES = {"type": "value_count", "rules": ["a"], "condition": {"field": "source.ip", "gte": 3}}
ORDERED = {"type": "temporal_ordered", "rules": ["a", "b"]}
TOGETHER = {"type": "temporal", "rules": ["a", "b"]}


def test_a_window_has_both_its_ends_and_slides(tmp_path: Path) -> None:
    engine = Engine(rules(tmp_path, many=COUNT), WORLD)
    for time_ms in (0, 1, HOUR_MS):
        engine.feed(event(time_ms), ["a"])
    assert found(engine) == [("many", 3)]
    engine = Engine(rules(tmp_path, many=COUNT), WORLD)
    for time_ms in (0, 1, HOUR_MS + 1):
        engine.feed(event(time_ms), ["a"])
    assert found(engine) == []
    engine.feed(event(HOUR_MS + 1, "v"), ["a"])
    assert found(engine) == [], "another user is another group"
    engine.feed(event(HOUR_MS + 1, "U", n="2"), ["a"])
    assert found(engine) == [("many", 3)], "values compare without regard to case"


def test_an_event_counts_once_however_often_it_is_fed(tmp_path: Path) -> None:
    engine = Engine(rules(tmp_path, many=COUNT), WORLD)
    for _ in range(5):
        engine.feed(event(1), ["a"])
        engine.feed(event(2), ["a"])
    assert found(engine) == []


def test_order_matters_in_one_kind_alone_and_one_event_is_not_two_of_a_row(tmp_path: Path) -> None:
    both = rules(tmp_path, ordered=ORDERED, together=TOGETHER)
    engine = Engine(both, WORLD)
    engine.feed(event(1), ["b"])
    engine.feed(event(2), ["a"])
    assert found(engine) == [("together", 2)]
    engine.feed(event(3), ["b"])
    assert sorted(found(engine)) == [("ordered", 2), ("together", 2)]
    engine = Engine(both, WORLD)
    engine.feed(event(1), ["a", "b"])
    assert ("ordered", 2) not in found(engine)


def test_a_value_beyond_its_most_does_not_count(tmp_path: Path) -> None:
    engine = Engine(rules(tmp_path, few={**VALUES, "auditship": {"per_value_max": 2}}), WORLD)
    for n, ip in enumerate("1112233"):
        engine.feed(event(n, **{"source.ip": ip}), ["a"])
    assert found(engine) == []
    engine.feed(event(9, **{"source.ip": "4"}), ["a"])
    assert found(engine) == [("few", 3)]


def test_what_primes_makes_no_hits_and_is_remembered(tmp_path: Path) -> None:
    engine = Engine(rules(tmp_path, many=COUNT), WORLD)
    engine.prime((event(n), ["a"]) for n in range(5))
    assert found(engine) == []
    engine.feed(event(9), ["a"])
    assert found(engine) == [("many", 6)]


@pytest.mark.parametrize("seed", range(20))
def test_counts_agree_with_counting_anew_also_where_events_come_a_little_late(tmp_path: Path, seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    engine = Engine(rules(tmp_path, many=COUNT), WORLD)
    times = sorted(chance.randrange(20 * HOUR_MS) for _ in range(40))
    order = sorted(times, key=lambda each: each + chance.randrange(HOUR_MS))
    for time_ms in order:
        engine.feed(event(time_ms), ["a"])
    expected = {end // HOUR_MS for end in times if sum(end - HOUR_MS <= each <= end for each in times) >= 3}
    assert {hit.start_ms // HOUR_MS for hit in engine.take()} == expected
    assert engine.late == {}


def test_what_comes_later_than_can_be_counted_is_noted(tmp_path: Path) -> None:
    engine = Engine(rules(tmp_path, many=COUNT, ordered=ORDERED), WORLD)
    engine.feed(event(10 * HOUR_MS), ["b", "a"])
    engine.feed(event(5 * HOUR_MS), ["a"])
    engine.feed(event(5 * HOUR_MS + 1), ["a"])
    assert [tuple(each) for each in engine.late["many"]] == [(5 * HOUR_MS, 6 * HOUR_MS + 1)]
    assert engine.late["ordered"][0].first_ms == 5 * HOUR_MS, "what follows it is past"


def test_an_event_that_is_older_than_all_there_is_room_for_is_counted_or_its_time_is_noted(tmp_path: Path) -> None:
    both = rules(tmp_path, values=VALUES, together=TOGETHER)
    engine = Engine(both, WORLD)
    for minute, ip in ((0, "a"), (1, "c"), (50, "a"), (59, "b"), (2, "b")):
        engine.feed(event(minute * MINUTE_MS, **{"source.ip": ip}), ["a"])
    assert (found(engine), engine.late) == ([("values", 3)], {}), "what is remembered will do"
    engine = Engine(both, WORLD)
    for minute, ip in ((0, "a"), (1, "c"), (62, "a"), (62, "b"), (2, "b")):
        engine.feed(event(minute * MINUTE_MS, **{"source.ip": ip}), ["a"])
    assert found(engine) == [], "of what came to an end with it, one event made room for a later one"
    assert engine.late == {"values": [Late(2 * MINUTE_MS, 62 * MINUTE_MS)]}
    engine = Engine(both, WORLD)
    for minute in (0, 3, 2, 1):
        engine.feed(event(minute * MINUTE_MS, **{"source.ip": "a"}), ["a"])
    assert engine.late == {}, "with one value alone it cannot matter"


def test_what_begins_a_row_late_is_remembered_for_what_follows(tmp_path: Path) -> None:
    engine = Engine(rules(tmp_path, ordered=ORDERED), WORLD)
    engine.feed(event(10, "other"), ["b"])
    engine.feed(event(9), ["a"])
    engine.feed(event(20), ["b"])
    assert found(engine) == [("ordered", 2)]


def test_what_is_older_than_what_is_remembered_is_noted_though_nothing_newer_was_seen(tmp_path: Path) -> None:
    engine = Engine(rules(tmp_path, many=COUNT), WORLD)
    engine.feed(event(5 * HOUR_MS), ["a"])
    engine.forget(5 * HOUR_MS)
    for time_ms in (4 * HOUR_MS, 4 * HOUR_MS - 1, 5 * HOUR_MS):
        engine.feed(event(time_ms, "v"), ["a"])
    assert engine.late == {"many": [Late(4 * HOUR_MS - 1, 5 * HOUR_MS - 1)]}


def in_order(events: Iterable[tuple[Event, list[str]]]) -> list[tuple[Event, list[str]]]:
    return sorted(events, key=lambda each: each[0].time_ms)


def hours_of(engine: Engine, events: Iterable[tuple[Event, list[str]]]) -> set[int]:
    """The hours of the hits that a run over these events makes."""
    for each, names in in_order(events):
        engine.feed(each, names)
    return {hit.start_ms // HOUR_MS for hit in engine.take()}


@pytest.mark.parametrize("correlation", [COUNT, VALUES, TOGETHER, ORDERED], ids=lambda each: str(each["type"]))
def test_with_the_times_that_are_read_again_nothing_is_missed_however_late(
    tmp_path: Path, correlation: Mapping[str, Any]
) -> None:
    needed = rules(tmp_path, rule=correlation)
    for seed in range(100):
        print("seed", seed)
        chance = random.Random(seed)
        addresses = "000123" if correlation is VALUES else "0"
        sent = [
            (
                event(chance.randrange(10 * HOUR_MS), **{"source.ip": chance.choice(addresses)}),
                [chance.choice(correlation["rules"])],
            )
            for _ in range(chance.choice([20, 40, 80]))
        ]
        lag_ms = chance.choice([HOUR_MS // 2, 3 * HOUR_MS])
        sent.sort(key=lambda each: each[0].time_ms + chance.randrange(lag_ms))
        engine, seen = Engine(needed, WORLD), set[int]()
        for at in range(0, len(sent), 10):
            seen |= hours_of(engine, sent[at : at + 10])
            for first_ms, last_ms in engine.late.pop("rule", []):
                again = Engine(needed, WORLD)
                again.prime(in_order(each for each in sent[: at + 10] if each[0].time_ms < first_ms))
                seen |= hours_of(again, [each for each in sent[: at + 10] if first_ms <= each[0].time_ms <= last_ms])
        assert seen == hours_of(Engine(needed, WORLD), sent)


def test_one_cause_makes_one_hit_an_hour_with_the_most_that_was_counted(tmp_path: Path) -> None:
    engine = Engine(rules(tmp_path, many={**COUNT, "timespan": "1m"}), WORLD)
    for n in range(180):
        engine.feed(event(n * 30_000), ["a"])
    hits: list[Hit] = engine.take()
    assert [(hit.start_ms, hit.total) for hit in hits] == [(0, 3), (HOUR_MS, 3)]


class Looked(dict[str, str]):
    """Facts that note which of them were looked at."""

    def __init__(self, facts: Mapping[str, str], names: set[str]) -> None:
        super().__init__(facts)
        self.names = names

    def get(self, key: str, default: Any = None) -> Any:
        self.names.add(key)
        return super().get(key, default)


def test_what_the_events_of_a_hit_agree_in_is_asked_for_an_alert_alone(tmp_path: Path) -> None:
    often = {**COUNT, "rules": ["many"]}
    engine = Engine(rules(tmp_path, many=COUNT, often=often, oftener={**often, "rules": ["often"]}), WORLD)
    names: set[str] = set()
    for n in range(100):
        facts = {"user.id": "u", "audit.gateway": "web", "source.ip": str(n), "organization.id": f"org-{n % 2}"}
        engine.feed(Event(n, f"id-{n}", Looked(facts, names)), ["a"])
    assert names == {"user.id"}, "no more than what is counted by"
    (hit,) = (hit for hit in engine.take() if hit.about.name == "oftener")
    assert common(hit.events) == {"user.id": "u", "audit.gateway": "web"}
    assert organizations(hit.events) == ("org-1", "org-0")


def test_memory_is_bounded_and_what_is_forgotten_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "EVENTS_MAX", 100)
    engine = Engine(rules(tmp_path, many=COUNT, values=VALUES), WORLD)
    for n in range(1000):
        engine.feed(event(n, f"u-{n}", **{"source.ip": str(n)}), ["a"])
    for n in range(1000):
        engine.feed(event(n, "busy", **{"source.ip": str(n)}), ["a"])
    assert engine.forgotten >= 900
    sizes = [groups.size for groups in engine._groups.values()]
    assert max(sizes) <= 150
    assert sizes == [sum(map(len, groups.windows.values())) for groups in engine._groups.values()]
    engine.forget(10 * HOUR_MS)
    assert [groups.size for groups in engine._groups.values()] == [0, 0]


def heard(minutes: Mapping[str, str]) -> list[tuple[str, int]]:
    """The silent gateways at the end; a line of x and . for each says when it spoke."""
    state = Heard()
    for minute in range(max(map(len, minutes.values()))):
        state.add(minute * MINUTE_MS, [name for name, line in minutes.items() if line[minute : minute + 1] == "x"])
    return [(each.gateway, each.last_ms // MINUTE_MS) for each in state.silent(5 * MINUTE_MS)]


@pytest.mark.parametrize(
    ("cli", "web", "silent"),
    [
        ("xxxxx......", "xxxxxxxxxxx", [("cli", 4)]),
        ("xxxxx.....", "xxxxxxxxxx", [("cli", 4)]),
        ("xxxxx....", "xxxxxxxxx", []),
        ("xxxx.......", "xxxxxxxxxxx", []),
        ("xxxxx......", "xxxxx......", []),
        ("xxxxx......", "xxxxxx.....", []),
        ("xxxxx.....x", "xxxxxxxxxxx", []),
        ("xxxxx......", "xxxxx.....x", []),
        ("xxxxx......", "xxxxx..xxxx", []),
        ("xxxxx......", "xxxxx.xxxxx", [("cli", 4)]),
    ],
)
def test_silence_is_that_of_one_who_spoke_while_others_speak(cli: str, web: str, silent: list[tuple[str, int]]) -> None:
    assert heard({"cli": cli, "web": web}) == silent
