"""Whether a document is what a query looks for: the meaning of the language, told in one place, over the document's JSON.

Everything else in the embedded store (columns, indices) only makes it look at fewer documents.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from auditship.clock import EPOCH
from indexer.store.contract import QueryError
from indexer.store.embedded.remembered import is_worth_it, remembered
from indexer.store.fields import ALL_TEXT, VALUE_MAX, getter, is_folded, limit_of, type_of, under
from indexer.store.query import Bool, Exists, Node, Range, Term

Predicate = Callable[[Any], bool]
"""Takes a document's JSON as Python objects."""

WORD = re.compile(r"\w+(?:['.]\w+)*")
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?)?)?)?(Z|[+-]\d\d:?\d\d)?")
_NOW = re.compile(r"now(?P<steps>(?:[+-]\d{1,9}[smhHdw])*)(?:/(?P<unit>[smhHdw]))?")
_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "H": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_WEEK_AT_MS: Final = 4 * 86_400_000
"""When weeks begin after the epoch, a Thursday: on Mondays."""
_YEAR_10000_MS: Final = 253_402_300_800_000
_LONG_MAX: Final = 2**63 - 1


def predicate(node: Node, now_ms: int, *, remembers: bool = True) -> Predicate:
    """The test that a query is; ``remembers``: parts that repeat are looked up instead of tested again.

    Raises:
        QueryError: a value does not fit its field.
    """
    match node:
        case Bool():
            if remembers and is_worth_it(node):
                return _remembered(node)
            return _bool(node, now_ms, remembers=remembers)
        case Exists():
            fields = under(node.field)
            return lambda document: any(_has(document, field) for field in fields)
        case Term(field=None) | Range(field=None):
            return _any([_leaf(node, field, now_ms) for field in ALL_TEXT])
        case Term() | Range():
            assert node.field is not None
            return _leaf(node, node.field, now_ms)


@lru_cache(maxsize=16)
def _remembered(node: Bool) -> Predicate:
    """A large query's test, with what it has learnt from earlier searches; times are not among its fields."""
    return remembered(node, _bool(node, 0, remembers=False))


def _never(value: Any) -> bool:
    del value
    return False


def _bool(node: Bool, now_ms: int, *, remembers: bool) -> Predicate:
    must = [predicate(each, now_ms, remembers=remembers) for each in node.must]
    must_not = [predicate(each, now_ms, remembers=remembers) for each in node.must_not]
    should = [predicate(each, now_ms, remembers=remembers) for each in node.should] if not node.must else []

    def test(document: Any) -> bool:
        for each in must:
            if not each(document):
                return False
        for each in must_not:
            if each(document):
                return False
        for each in should:
            if each(document):
                return True
        return not should

    return test


def _any(tests: Sequence[Predicate]) -> Predicate:
    return lambda document: any(test(document) for test in tests)


def _has(document: Any, field: str) -> bool:
    limit = limit_of(field)
    return any(not isinstance(value, str) or len(value) <= limit for value in getter(field)(document))


def _leaf(node: Term | Range, field: str, now_ms: int) -> Predicate:
    """The test of one field; a value that cannot be one of its type is in none."""
    match type_of(field):
        case "keyword":
            test = _keyword(node, str.lower if is_folded(field) else str, limit_of(field))
        case "flattened":
            test = _keyword(node, str, limit_of(field))
        case "text":
            test = _text(node)
        case "ip":
            test = _address(node)
        case "long":
            test = _number(node)
        case "date":
            test = _date(node, now_ms, field)
        case _:
            return _never
    get = getter(field)

    def holds(document: Any) -> bool:
        for value in get(document):  # noqa: SIM110 - a generator for each field would cost more than the tests
            if test(value):
                return True
        return False

    return holds


def _keyword(node: Term | Range, fold: Callable[[str], str], limit: int) -> Predicate:
    if isinstance(node, Range):
        within = _between(node, None if node.low is None else fold(node.low), None if node.high is None else fold(node.high))
        return lambda value: len(value := _as_text(value)) <= limit and within(fold(value))
    if node.pattern is not None:
        matches = re.compile(fold(node.pattern.pattern) if fold is str.lower else node.pattern.pattern, re.DOTALL).fullmatch
        return lambda value: len(value := _as_text(value)) <= limit and matches(fold(value)) is not None
    wanted = fold(node.value)
    return lambda value: len(value := _as_text(value)) <= limit and fold(value) == wanted


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def _between(node: Range, low: Any, high: Any) -> Predicate:
    def test(value: Any) -> bool:
        if low is not None and (value < low or (value == low and not node.includes_low)):
            return False
        return high is None or value < high or (value == high and node.includes_high)

    return test


def _text(node: Term | Range) -> Predicate:
    """Words in a text: one of those of the term, or all in a row where it was quoted."""
    if isinstance(node, Range):
        within = _between(node, node.low and node.low.lower(), node.high and node.high.lower())
        return lambda value: any(within(word) for word in words(str(value)))
    if node.pattern is not None:
        matches = re.compile(node.pattern.pattern.lower(), re.DOTALL).fullmatch
        return lambda value: any(len(word) <= VALUE_MAX and matches(word) for word in words(str(value)))
    wanted = words(node.value)
    if not wanted:
        return _never
    if not node.is_phrase:
        return lambda value: not set(wanted).isdisjoint(words(str(value)))

    def has_phrase(value: Any) -> bool:
        found = words(str(value))
        return any(found[at : at + len(wanted)] == wanted for at in range(len(found) - len(wanted) + 1))

    return has_phrase


def words(text: str) -> list[str]:
    """A text's words in lower case."""
    return WORD.findall(text.lower())


def packed(text: str) -> bytes | None:
    """An address as 16 bytes that sort as addresses do; None for what is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed  # noqa: PLR2004


def address_bounds(text: str) -> tuple[bytes, bytes] | None:
    """The first and last address of a network or of one address; None for what is neither."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    low, high = packed(str(network[0])), packed(str(network[-1]))
    assert low is not None
    assert high is not None
    return low, high


def _address(node: Term | Range) -> Predicate:
    if isinstance(node, Range):
        low, high = (None if end is None else packed(end) for end in (node.low, node.high))
        if (node.low is not None and low is None) or (node.high is not None and high is None):
            return _never
        within = _between(node, low, high)
        return lambda value: (address := packed(str(value))) is not None and within(address)
    bounds = None if node.pattern is not None else address_bounds(node.value)
    if bounds is None:
        return _never
    return lambda value: (address := packed(str(value))) is not None and bounds[0] <= address <= bounds[1]


def _number(node: Term | Range) -> Predicate:
    try:
        if isinstance(node, Range):
            within = _between(node, *(None if end is None else _finite(end) for end in (node.low, node.high)))
            return lambda value: isinstance(value, int | float) and within(value)
        wanted = _finite(node.value)
    except ValueError:
        return _never
    return lambda value: isinstance(value, int | float) and value == wanted


def _finite(text: str) -> float:
    """A number.

    Raises:
        ValueError: it is none, infinite, or none but to Python (``1_000``).
    """
    if "_" in text or not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number


def _date(node: Term | Range, now_ms: int, field: str) -> Predicate:
    low, high = time_bounds(node, now_ms, field)
    return lambda value: (
        (time := _instant(str(value))) is not None and (low is None or time >= low) and (high is None or time <= high)
    )


def time_bounds(node: Term | Range, now_ms: int, field: str) -> tuple[int | None, int | None]:
    """The first and last millisecond that a query on a date means, both inclusive.

    Raises:
        QueryError: that is no time.
    """
    if isinstance(node, Term):
        first, last = _span(node.value, now_ms, field)
        return first, last
    low = high = None
    if node.low is not None:
        first, last = _span(node.low, now_ms, field)
        low = first if node.includes_low else last + 1
    if node.high is not None:
        first, last = _span(node.high, now_ms, field)
        high = last if node.includes_high else first - 1
    return low, high


def _span(text: str, now_ms: int, field: str) -> tuple[int, int]:
    """The first and last millisecond of a time of whatever precision."""
    if relative := _NOW.fullmatch(text):
        time = now_ms
        for sign, number, unit in re.findall(r"([+-])(\d+)(\w)", relative["steps"]):
            time += int(sign + number) * _UNITS_MS[unit]
        unit_ms = _UNITS_MS[relative["unit"]] if relative["unit"] else 1
        first = time - (time - (_WEEK_AT_MS if relative["unit"] == "w" else 0)) % unit_ms
        if abs(first) < _LONG_MAX - unit_ms:
            return first, first + unit_ms - 1
    if re.fullmatch(r"-?\d{5,18}", text):
        return int(text), int(text)
    span = _dated(text)
    if span is None:
        raise QueryError(
            f"{field}: {text!r} is not a time", "Write 2026-11-23, 2026-11-23T10:00:00Z, now-1h or epoch milliseconds."
        )
    return span


def _dated(text: str) -> tuple[int, int] | None:
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    *numbers, fraction, zone = match.groups()
    parts = [int(each) for each in numbers if each is not None]
    try:
        start = datetime(*(parts + [1, 1][len(parts) - 1 :] if len(parts) < 3 else parts), tzinfo=UTC)  # type: ignore[misc, arg-type]  # noqa: PLR2004
    except ValueError:
        return None
    offset = _offset(zone)
    first = round((start - EPOCH) / timedelta(milliseconds=1)) - offset
    if fraction is not None:
        first += int(fraction[:3].ljust(3, "0"))
        return first, first
    try:
        end_ms = round((_next(start, len(parts)) - EPOCH) / timedelta(milliseconds=1))
    except (ValueError, OverflowError):  # Python knows no later years
        end_ms = _YEAR_10000_MS
    return first, end_ms - offset - 1


def _next(start: datetime, precision: int) -> datetime:
    """The beginning of the next year, month, day, hour, minute or second."""
    match precision:
        case 1:
            return start.replace(year=start.year + 1)
        case 2:
            return (start + timedelta(days=31)).replace(day=1)
        case _:
            return start + (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))[precision - 3]


def _offset(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    digits = zone[1:].replace(":", "")
    return (1 if zone[0] == "+" else -1) * (int(digits[:2]) * 3_600_000 + int(digits[2:]) * 60_000)


def _instant(text: str) -> int | None:
    """A document's time in milliseconds."""
    try:
        return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)
    except (ValueError, TypeError):
        return None
