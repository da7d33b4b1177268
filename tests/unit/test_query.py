"""What the text of a query becomes."""

from __future__ import annotations

import random
import time

from indexer.store.fields import values
from indexer.store.query import Term, parse


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
