"""What the text of a query becomes."""

from __future__ import annotations

import random
import time

import pytest

from auditship.when import parse as parse_time
from indexer.store.contract import QueryError
from indexer.store.embedded.predicate import predicate, time_bounds
from indexer.store.fields import values
from indexer.store.query import Range, Term, parse

DAY_MS = 86_400_000
MONDAY_MS = 1_795_392_000_000
"""2026-11-23"""
END_MS = 253_402_300_800_000
"""The year 10000"""


def matches(wanted: str, value: str) -> bool:
    """Wildcards as they are defined, tried one by one."""
    if not wanted:
        return not value
    if wanted[0] == "*":
        return any(matches(wanted[1:], value[at:]) for at in range(len(value) + 1))
    return bool(value) and wanted[0] in ("?", value[0]) and matches(wanted[1:], value[1:])


def found(wanted: str, value: str) -> bool:
    node = parse(f"user.id:{wanted}")
    assert isinstance(node, Term)
    assert node.pattern is not None
    return node.pattern.fullmatch(value) is not None


def test_wildcards_mean_what_they_say() -> None:
    seed = time.time_ns()
    print("seed", seed)
    chance = random.Random(seed)
    some = 0
    for _ in range(3000):
        wanted = "".join(chance.choices("ab*?", k=chance.randint(1, 6))) + chance.choice("*?") + chance.choice(("", "a", "b"))
        value = "".join(chance.choices("ab\n", (6, 6, 1), k=chance.randint(0, 7)))
        if wanted == "**" or wanted.strip("*"):
            assert found(wanted, value) == matches(wanted, value), (wanted, value)
            some += found(wanted, value)
    assert some > 300


def test_no_value_makes_a_pattern_go_back_and_forth() -> None:
    for wanted in ("*a" * 9 + "*z", "*a?" * 9 + "*z", "a*" * 9 + "?z", "*?" * 20 + "z*"):
        assert not found(wanted, "a" * 1000)  # the time limit of the tests is what a bad pattern would meet


def test_values_are_found_however_deep_they_are() -> None:
    deep: object = [1, {"c": True}, 2]
    for _ in range(2000):
        deep = [deep]
    document = {"audit": {"extra": {"a": {"b": deep}, "d": None, "e": "x"}}}
    assert list(values(document, "audit.extra")) == ["1", "true", "2", "x"]
    assert list(values(document, "audit.extra.a.b")) == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("now/w", "2026-11-23", None),
        ("now-1w/w", "2026-11-16", None),
        ("9999", "9999-01-01", END_MS),
        ("9999-12", "9999-12-01", END_MS),
        ("9999-12-31", "9999-12-31", END_MS),
    ],
)
def test_times_are_spans_from_monday_to_the_end_of_all_years(text: str, low: str, high: int | None) -> None:
    for day in range(7):
        first, last = time_bounds(Term("@timestamp", text), MONDAY_MS + day * DAY_MS + 1, "@timestamp")
        assert first == parse_time(low, 0)
        assert last == (parse_time(low, 0) + 7 * DAY_MS - 1 if high is None else high - 1)


@pytest.mark.parametrize("text", ["now" + "+999999999w" * 20, "now" + "-999999999w" * 20, "0000"])
def test_what_is_no_time_is_told(text: str) -> None:
    for low, high in ((text, None), (None, text)):
        with pytest.raises(QueryError, match="not a time"):
            time_bounds(Range("@timestamp", low, high), MONDAY_MS, "@timestamp")


@pytest.mark.parametrize("text", ["[nan TO *]", "[* TO inf]", "nan", "4_7", "[* TO 1e999]"])
def test_what_is_no_number_finds_nothing(text: str) -> None:
    assert not predicate(parse(f"event.severity:{text}"), 0)({"event": {"severity": 47}})
