"""Tests of large queries, remembered: most documents look like many others in the few fields that a query asks for.

The answer is looked up by the values of those fields. Where they hardly ever repeat, that is noticed and the query is tested
each time as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from indexer.store.fields import getter, limit_of, type_of, under
from indexer.store.query import Bool, Exists, Node

LEAVES_MIN: Final = 8
FIELDS_MAX: Final = 24
ANSWERS_MAX: Final = 50_000
TRIAL: Final = 5_000
"""Look-ups after which it shows whether remembering pays."""
_UNLIKE: Final = frozenset({"event.id", "event.sequence", "log.offset", "audit.skew_ms", "http.request.id"})
"""Fields that differ from document to document, as times do."""


def is_worth_it(node: Bool) -> bool:
    """Whether a query is large, and asks for fields that repeat."""
    leaves = list(_leaves(node))
    asked = {each.field for each in leaves}
    if len(leaves) < LEAVES_MIN or len(asked) > FIELDS_MAX or None in asked or asked & _UNLIKE:
        return False
    return all(type_of(field) != "date" for field in asked)


def remembered(node: Bool, test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """The test of a query, asked once for each combination of values. Safe from several threads."""
    key_of = key_maker(node)
    answers: dict[tuple[Any, ...], bool] = {}
    asked = 0

    def lookup(document: Any) -> bool:
        nonlocal asked
        if asked < 0:
            return test(document)
        key = key_of(document)
        answer = answers.get(key)
        if answer is None:
            answer = test(document)
            if len(answers) >= ANSWERS_MAX:
                answers.clear()
            answers[key] = answer
        asked += 1
        if asked == TRIAL and len(answers) > TRIAL // 2:
            asked = -1
            answers.clear()
        return answer

    return lookup


def key_maker(*nodes: Node) -> Callable[[Any], tuple[Any, ...]]:
    """What of a document decides whether queries find it: two documents with the same key are the same to them."""
    fields: dict[str, None] = {}
    existing: dict[str, None] = {}
    for leaf in (each for node in nodes for each in _leaves(node)):
        assert leaf.field is not None
        if isinstance(leaf, Exists):
            existing |= dict.fromkeys(under(leaf.field))
        else:
            fields[leaf.field] = None
    getters = [getter(field) for field in fields if type_of(field)]
    others = [(getter(field), limit_of(field)) for field in existing if field not in fields]

    def key_of(document: Any) -> tuple[Any, ...]:
        found = [_hashed(get(document)) for get in getters]
        found += [_lengths(get(document), limit) for get, limit in others]
        return tuple(found)

    return key_of


def _hashed(values: Any) -> Any:
    """Values as a key: true is not 1."""
    if len(values) == 1 and type(values[0]) is str:
        return values[0]
    return tuple((type(value), value) for value in values)


def _lengths(values: Any, limit: int) -> Any:
    """What decides whether there is a value: one that is too long counts as none."""
    return tuple(len(value) > limit if type(value) is str else False for value in values)


def _leaves(node: Node) -> Iterator[Any]:
    if isinstance(node, Bool):
        for each in (*node.must, *node.should, *node.must_not):
            yield from _leaves(each)
    else:
        yield node
