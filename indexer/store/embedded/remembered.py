"""Tests of large queries, remembered: most documents look like many others in the few fields that a query asks for.

The answer is looked up by the values of those fields; long ones and lists are known by their digest. Where they hardly ever
repeat, that is noticed and the query is tested each time as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from sys import getsizeof
from typing import Any, Final

from indexer.store.fields import getter, limit_of, type_of, under
from indexer.store.query import Bool, Exists, Node

LEAVES_MIN: Final = 8
FIELDS_MAX: Final = 24
ANSWERS_MAX: Final = 50_000
BYTES_MAX: Final = 8 << 20
"""What the answers to one query may take, about."""
TEXT_MAX: Final = 256
"""Characters of a value that is kept as it is."""
_ANSWER_BYTES: Final = 120
"""What an answer takes besides the values: its place, and a tuple."""
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
    asked = missed = held = 0

    def lookup(document: Any) -> bool:
        nonlocal asked, missed, held
        if asked < 0:
            return test(document)
        key = key_of(document)
        answer = answers.get(key)
        if answer is None:
            answer = test(document)
            missed += 1
            held += sum(map(getsizeof, key)) + _ANSWER_BYTES
            if len(answers) >= ANSWERS_MAX or held > BYTES_MAX:
                answers.clear()
                held = 0
            answers[key] = answer
        asked += 1
        if asked == TRIAL and missed > TRIAL // 2:
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
        found += [_exists(get(document), limit) for get, limit in others]
        return tuple(found)

    return key_of


def _hashed(values: Any) -> Any:
    """Values as a key: true is not 1."""
    if len(values) == 1:
        value = values[0]
        if type(value) is not str:
            return type(value), value
        if len(value) <= TEXT_MAX:
            return value
    return blake2b(repr(values).encode(), digest_size=16).digest() if values else ()


def _exists(values: Any, limit: int) -> bool:
    """Whether there is a value: one that is too long counts as none."""
    return any(type(value) is not str or len(value) <= limit for value in values)


def _leaves(node: Node) -> Iterator[Any]:
    if isinstance(node, Bool):
        for each in (*node.must, *node.should, *node.must_not):
            yield from _leaves(each)
    else:
        yield node
