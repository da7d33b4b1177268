"""The query language: Lucene's syntax, as in Kibana's search bar, read into a small tree.

A field's value is compared whole and without regard to case, with ``*`` and ``?`` as wildcards; ``audit.extra.*`` with regard
to case. ``event.reason`` and ``audit.rejection.reason`` are texts, in which words are looked for. A word without a field is
looked for in :data:`~indexer.store.fields.ALL_TEXT`. Addresses are compared as addresses (``source.ip:"10.0.0.0/8"``), times
as times (``@timestamp:[2026-11-01 TO now-1h]``), ``_exists_:user.email`` asks whether there is one.

``AND``, ``OR`` and ``NOT`` mean what they mean in Lucene, which has no precedence: what stands beside an AND must be, what
stands beside OR alone may be, and an OR beside an AND changes nothing. Parentheses say clearly what is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from luqum import tree
from luqum.exceptions import ParseError
from luqum.thread import parse as parse_lucene

from indexer.store.contract import QueryError

TEXT_MAX: Final = 10_000
CLAUSES_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Term:
    """A value to be found in a field (none: anywhere); ``pattern`` where it has wildcards, ``is_phrase`` if it was quoted."""

    field: str | None
    value: str
    is_phrase: bool = False
    pattern: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """A field's value between two, each None where it is open."""

    field: str | None
    low: str | None
    high: str | None
    includes_low: bool = True
    includes_high: bool = True


@dataclass(frozen=True, slots=True)
class Exists:
    """A field that has a value."""

    field: str


@dataclass(frozen=True, slots=True)
class Bool:
    """All of ``must``, none of ``must_not``, and, where there is no ``must``, one of ``should`` if there are any."""

    must: tuple[Node, ...] = ()
    should: tuple[Node, ...] = ()
    must_not: tuple[Node, ...] = ()


Node = Term | Range | Exists | Bool


def parse(text: str) -> Node:
    """The tree of a query; everything is found by an empty one.

    Raises:
        QueryError: it cannot be understood; says where.
    """
    if not text.strip():
        return Bool()
    try:
        return _Reading().read(tree_of(text), None)
    except RecursionError as error:
        raise _not_understood(str(error)) from None


def tree_of(text: str) -> tree.Item:
    """A query as the library has it.

    Raises:
        QueryError: it is none.
    """
    if len(text) > TEXT_MAX:
        raise QueryError(f"the query is longer than {TEXT_MAX} characters")
    try:
        found: tree.Item = parse_lucene(text)
    except (ParseError, RecursionError) as error:
        raise _not_understood(str(error).replace("Syntax error in input : ", "")) from None
    except ArithmeticError:  # of the library's decimal numbers
        raise _not_understood("behind ^ and ~ stands a number") from None
    return found


def _not_understood(why: str) -> QueryError:
    return QueryError(f"the query cannot be understood: {why}", "Close quotes and parentheses; put \\ before : ( ) [ ].")


class _Reading:
    """One reading of a parsed query: counts its clauses."""

    def __init__(self) -> None:
        self._left = CLAUSES_MAX

    def read(self, item: tree.Item, field: str | None) -> Node:
        """A part of the query, whose words are looked for in a field."""
        self._left -= 1
        if self._left < 0:
            raise QueryError(f"the query has more than {CLAUSES_MAX} clauses")
        match item:
            case tree.SearchField():
                return self._field(item)
            case tree.BaseGroup() | tree.Boost():
                return self.read(item.expr, field)
            case tree.BaseOperation() | tree.Not() | tree.Plus() | tree.Prohibit():
                return self._operation(item, field)
            case tree.Word() | tree.Phrase():
                return _term(item, field)
            case tree.Range():
                return Range(field, _bound(item.low), _bound(item.high), item.include_low, item.include_high)
            case tree.From():
                return Range(field, _bound(item.a), None, includes_low=item.include)
            case tree.To():
                return Range(field, None, _bound(item.a), includes_high=item.include)
        raise QueryError(
            f"{item}: this kind of search is not offered here", "Use words, phrases, ranges and the wildcards * and ?."
        )

    def _field(self, item: tree.SearchField) -> Node:
        if isinstance(item.expr, tree.SearchField):
            raise QueryError(f"{item}: a : within a value", "Quote the value, or put \\ before the :.")
        if item.name == "_exists_":
            return Exists(unescaped(str(item.expr).strip('"')))
        if item.name == "*":
            return self.read(item.expr, None)
        return self.read(item.expr, unescaped(item.name))

    def _operation(self, item: tree.Item, field: str | None) -> Bool:
        found: dict[str, list[Node]] = {"must": [], "should": [], "must_not": []}
        for occurs, each in _clauses(item, "should"):
            found[occurs].append(self.read(each, field))
        return Bool(tuple(found["must"]), tuple(found["should"]), tuple(found["must_not"]))


def _clauses(item: tree.Item, occurs: str) -> Iterator[tuple[str, tree.Item]]:
    """The clauses of an operation, those of its ungrouped operations among them, as Lucene sees them."""
    match item:
        case tree.AndOperation():
            for each in item.children:
                yield from _clauses(each, "must")
        case tree.UnknownOperation():
            for each in _joined(item.children):
                yield from _clauses(each, occurs)
        case tree.BaseOperation():
            for each in item.children:
                yield from _clauses(each, occurs)
        case tree.Not() | tree.Prohibit():
            yield "must_not", item.a
        case tree.Plus():
            yield "must", item.a
        case _:
            yield occurs, item


def _joined(items: Sequence[tree.Item]) -> Iterator[tree.Item]:
    """Words side by side are one value, as in Elasticsearch: ``Ada Lovelace`` finds her name without quotes.

    A word before a lone ``*`` stands for itself.
    """
    for run in runs(items):
        yield run[0] if len(run) == 1 else tree.Word(" ".join(word.value for word in run))


def runs(items: Sequence[tree.Item]) -> Iterator[Sequence[tree.Item]]:
    """Words side by side, which are one value, together; everything else by itself."""
    run: list[tree.Item] = []
    for at, item in enumerate(items):
        if _is_joined(item, items[at + 1] if at + 1 < len(items) else None):
            run.append(item)
            continue
        if run:
            yield run
            run = []
        yield [item]
    if run:
        yield run


def _is_joined(item: tree.Item, follows: tree.Item | None) -> bool:
    """Whether something is a word that is one value with the words beside it."""
    is_word = type(item) is tree.Word and not item.has_wildcard() and item.value not in {"&&", "||"}
    return is_word and not (isinstance(follows, tree.Word) and follows.value == "*")


def _term(item: tree.Word | tree.Phrase, field: str | None) -> Node:
    if isinstance(item, tree.Phrase):
        return Term(field, unescaped(item.value[1:-1]), is_phrase=True)
    text = item.value
    if text in {"&&", "||"} or text.startswith("!"):
        raise QueryError(f"{text}: write AND, OR and NOT in words", 'A word that begins with ! is written "!..." in quotes.')
    if text == "*":
        return Bool() if field is None else Exists(field)
    if item.has_wildcard():
        return Term(field, text, pattern=_pattern(text))
    return Term(field, unescaped(text))


def _bound(item: tree.Item) -> str | None:
    """An end of a range."""
    text = str(item.value if isinstance(item, tree.Word | tree.Phrase) else item)
    text = text[1:-1] if isinstance(item, tree.Phrase) else text
    return None if text == "*" else unescaped(text)


def unescaped(text: str) -> str:
    """Without the backslashes that stand before what they protect."""
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _pattern(text: str) -> re.Pattern[str]:
    """A word with wildcards as a pattern over a whole value in lower case, or as it is where case counts.

    What stands between two ``*`` is taken where it is met first, for good (an atomic group): that misses nothing, and no value
    can make the search go back and forth, which it would with all of the program waiting.
    """
    pieces = [""]
    for part in re.findall(r"\\.|[*?]|[^\\*?]+|\\", text, flags=re.DOTALL):
        if part == "*":
            pieces.append("")
        else:
            pieces[-1] += "." if part == "?" else re.escape(unescaped(part))
    first, *others = pieces
    middle = "".join(f"(?>.*?{piece})" for piece in others[:-1] if piece)
    return re.compile(f"{first}{middle}.*{others[-1]}" if others else first, re.DOTALL)
