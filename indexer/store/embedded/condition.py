"""SQL that every document satisfies which a query finds: it lets the indices do their part.

A condition may let too much through, never too little. ``is_exact`` says that it lets through nothing else either; then the
bodies need not be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

from auditship.block import RESERVED_GATEWAYS
from indexer.store.contract import Query
from indexer.store.embedded.predicate import WORD, address_bounds, time_bounds
from indexer.store.embedded.row import folded, tokens
from indexer.store.embedded.segment import UNKNOWN_MINUTE
from indexer.store.fields import ALL_TEXT, type_of
from indexer.store.query import Bool, Exists, Node, Range, Term

DEPTH_MAX: Final = 10
"""How deep a condition may be: SQLite's parser has room for some two dozen."""
_MINUTE_MS: Final = 60_000
_COLUMNS: Final = {
    "audit.severity": "severity",
    "event.outcome": "outcome",
    "organization.id": "organization",
    "user.id": "user",
    "event.action": "action",
}
ACTOR: Final = ("user.id", "user.name", "user.full_name", "user.email")


class Condition(NamedTuple):
    """An SQL expression, its parameters, and whether it is all there is to it."""

    sql: str
    parameters: tuple[object, ...] = ()
    is_exact: bool = True
    depth: int = 0
    """Parentheses within each other."""


ALL: Final = Condition("1")
ANY: Final = Condition("1", is_exact=False)
"""Everything may be found; only the bodies tell."""


def filters(query: Query) -> Node:
    """The everyday filters of a query as a part of its tree; severities, datasets and times are columns' alone."""
    terms = (("organization.id", query.organization), ("event.action", query.action), ("event.outcome", query.outcome))
    must: list[Node] = [Term(field, value, is_phrase=True) for field, value in terms if value is not None]
    if query.actor is not None:
        must.append(Bool(should=tuple(Term(field, query.actor, is_phrase=True) for field in ACTOR)))
    return Bool(must=tuple(must))


def columns(query: Query) -> Condition:
    """What a query asks of columns alone."""
    parts, parameters = [], list[object]()
    if query.datasets:
        parts.append(_among("dataset", query.datasets))
        parameters += query.datasets
    else:
        reserved = sorted(RESERVED_GATEWAYS)
        parts.append("NOT " + _among("dataset", reserved))
        parameters += reserved
    if query.since_ms is not None:
        parts.append("time >= ?")
        parameters.append(query.since_ms)
    if query.until_ms is not None:
        parts.append("time < ?")
        parameters.append(query.until_ms)
    if query.organizations:
        parts.append(_among("organization", query.organizations))
        parameters += [folded(each) for each in query.organizations]
    if query.severities:
        severities = [each.lower() for each in query.severities]
        parts.append(_among("severity", severities))
        parameters += severities
        if "info" not in severities:
            parts.append("severity <> 'info'")  # what the partial index is for
    return Condition(" AND ".join(parts), tuple(parameters))


def _among(column: str, values: Sequence[object]) -> str:
    return f"{column} IN ({','.join('?' * len(values))})"


def condition(node: Node, now_ms: int) -> Condition:
    """What the columns and the index of words know of a query."""
    match node:
        case Bool():
            return _bool(node, now_ms)
        case Term():
            return _term(node, now_ms)
        case Range(field="@timestamp"):
            return _time(node, now_ms)
        case Range(field="event.ingested"):
            return _arrival(node, now_ms)
        case Range() | Exists():
            return ANY


def _bool(node: Bool, now_ms: int) -> Condition:
    parts = [condition(each, now_ms) for each in node.must]
    if node.should and not node.must:
        parts.append(_either([condition(each, now_ms) for each in node.should]))
    for each in node.must_not:
        part = condition(each, now_ms)
        parts.append(Condition(f"({part.sql}) IS NOT 1", part.parameters, depth=part.depth + 1) if part.is_exact else ANY)
    return _joined(" AND ", parts)


def _either(parts: Sequence[Condition]) -> Condition:
    if any(part.sql == "1" for part in parts):
        return Condition("1", is_exact=any(part == ALL for part in parts))
    return _joined(" OR ", parts)


def _joined(joint: str, parts: Sequence[Condition]) -> Condition:
    """Conditions as one; any, where that would be too deep."""
    narrowing = [part for part in parts if part.sql != "1"]
    depth = 1 + max((part.depth for part in narrowing), default=-1)
    if depth > DEPTH_MAX:
        return ANY
    sql = joint.join(f"({part.sql})" for part in narrowing) or "1"
    parameters = tuple(each for part in parts for each in part.parameters)
    return Condition(sql, parameters, all(part.is_exact for part in parts), depth)


def _term(node: Term, now_ms: int) -> Condition:
    if node.pattern is not None:
        return ANY
    if node.field == "@timestamp":
        return _time(node, now_ms)
    if node.field == "source.ip":
        bounds = address_bounds(node.value)
        return Condition("ip BETWEEN ? AND ?", bounds) if bounds else Condition("0")
    if node.field in _COLUMNS:
        value = folded(node.value)
        return Condition("0") if value is None else Condition(f"{_COLUMNS[node.field]} = ?", (value,))
    if node.field is None and address_bounds(node.value):
        return ANY
    if node.field is None or (node.field in ALL_TEXT and type_of(node.field) in ("keyword", "text")):
        return _words(node)
    return ANY


def _time(node: Term | Range, now_ms: int) -> Condition:
    low, high = time_bounds(node, now_ms, "@timestamp")
    parts = [(sql, each) for sql, each in (("time >= ?", low), ("time <= ?", high)) if each is not None]
    return Condition(" AND ".join(sql for sql, _ in parts) or "1", tuple(each for _, each in parts))


def _arrival(node: Range, now_ms: int) -> Condition:
    """Documents between the first and the last number of the minutes in which they arrived."""
    low, high = time_bounds(node, now_ms, "event.ingested")
    parts, parameters = ["minute >= ?"], [max(low or 0, 0) // _MINUTE_MS]
    if high is not None:
        parts.append("minute <= ?")
        parameters.append(high // _MINUTE_MS)
    minutes = f"FROM arrival WHERE {' AND '.join(parts)} OR minute = {UNKNOWN_MINUTE}"
    sql = f"number BETWEEN (SELECT min(first) {minutes}) AND (SELECT max(last) {minutes})"
    return Condition(sql, (*parameters, *parameters), is_exact=False)


def _words(node: Term) -> Condition:
    """Documents that hold the words of a value, where those can be told from its text."""
    if node.is_phrase or (node.field is not None and type_of(node.field) == "keyword"):
        joint, found = " AND ", tokens(node.value)
    else:  # one word is enough, so each has to be known to the index
        known = [tokens(word) for word in WORD.findall(node.value)]
        joint, found = " OR ", list(chain.from_iterable(known)) if all(known) else []
    if not found:
        return ANY
    matched = joint.join(f'"{each}"' for each in found)
    return Condition("number IN (SELECT rowid FROM words WHERE words MATCH ?)", (matched,), is_exact=False)
