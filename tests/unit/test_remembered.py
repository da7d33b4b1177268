"""Remembering answers changes none of them."""

from __future__ import annotations

import pickle
import random
import tracemalloc
from typing import Any

import pytest

from indexer.store.embedded import remembered
from indexer.store.embedded.predicate import predicate
from indexer.store.query import parse

QUERY = (
    "(event.action:(project.* OR secret.read) AND event.outcome:failure) OR (_exists_:user.email AND NOT user.id:u-1)"
    " OR audit.extra.role:(admin OR true) OR event.severity:>=47 OR (*:* AND NOT _exists_:source) OR tags:(one OR two)"
)
VALUES: tuple[Any, ...] = (
    "project.read",
    "Secret.Read",
    "failure",
    "u-1",
    "admin",
    "true",
    True,
    1,
    47,
    47.0,
    "x" * 2000,
    "x" * 1000,
    "y" * 1000,
    None,
)


def document(chance: random.Random) -> dict[str, Any]:
    def value() -> Any:
        return [chance.choice(VALUES), chance.choice(VALUES)] if chance.random() < 0.1 else chance.choice(VALUES)

    return {
        "event": {"action": value(), "outcome": value(), "severity": value()},
        "user": {"id": value(), "email": value()} if chance.random() < 0.8 else value(),
        "audit": {"extra": {"role": value()}} if chance.random() < 0.5 else {},
        "source": {"ip": value()},
        "tags": value(),
    }


@pytest.mark.parametrize("seed", range(5))
def test_a_remembered_answer_is_the_one_that_testing_gives(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    print("seed", seed)
    monkeypatch.setattr(remembered, "ANSWERS_MAX", 100)
    monkeypatch.setattr(remembered, "TRIAL", 500 if seed % 2 else 10**9)
    node = parse(QUERY)
    assert remembered.is_worth_it(node)  # type: ignore[arg-type]
    plain = predicate(node, 0, remembers=False)
    quick = remembered.remembered(node, plain)  # type: ignore[arg-type]
    chance = random.Random(seed)
    for _ in range(2000):
        each = document(chance)
        assert quick(each) == plain(each), each


def test_queries_for_times_and_single_documents_are_not_remembered() -> None:
    for more in ("@timestamp:[1 TO *]", "event.sequence:1", "word"):
        assert not remembered.is_worth_it(parse(f"({QUERY}) AND {more}"))  # type: ignore[arg-type]


def test_long_values_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    node = parse("user.id:(" + " OR ".join(f"u-{n}" for n in range(9)) + ") OR tags:x")
    key_of = remembered.key_maker(node)
    long = [key_of({"user": {"id": "u" * 100_000 + each}, "tags": ["t" * 1000, each] * 100}) for each in "ab"]
    assert len(pickle.dumps(long)) < 1000
    assert long[0] != long[1]
    monkeypatch.setattr(remembered, "BYTES_MAX", 20_000)
    quick = remembered.remembered(node, lambda document: document["user"]["id"] == "u-7")  # type: ignore[arg-type]
    tracemalloc.start()
    for n in range(4000):
        assert quick({"user": {"id": f"u-{n % 2000}"}}) == (n % 2000 == 7)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 60_000
