"""Turns a Sigma detection into a query in Lucene's syntax, which both stores answer alike.

What the two stores, or Sigma and they, would read differently is refused here, with what to write instead: regular
expressions, case, comparisons of fields, parts of times, words without a field, fields that no document has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Final

from sigma.backends.elasticsearch.elasticsearch_lucene import LuceneBackend
from sigma.conditions import ConditionNOT
from sigma.conversion.state import ConversionState
from sigma.exceptions import SigmaError
from sigma.modifiers import modifier_mapping
from sigma.rule import SigmaDetection, SigmaDetectionItem, SigmaRule
from sigma.types import SigmaString

from indexer.store import fields
from indexer.store.contract import QueryError
from indexer.store.embedded.predicate import Predicate, predicate
from indexer.store.query import parse

MODIFIERS: Final = ("all", "cidr", "contains", "endswith", "exists", "gt", "gte", "lt", "lte", "neq", "startswith")
QUERY_MAX: Final = 4_000
SERVICES: Final[Mapping[str, tuple[str, ...]]] = {"audit": (), "agent": ("agent",)}
"""The datasets that a rule's ``logsource`` means: all gateways' events, or the agents' own record."""
_INSTEAD: Final = {
    "re": "Write wildcards: * and ?.",
    "cased": "Names compare without regard to case, audit.extra with it; nothing changes that.",
    "fieldref": "Write auditship: {where: {same: [field, field]}}.",
}


class _Backend(LuceneBackend):
    """Says NOT so that it means the same wherever it stands: Lucene takes a lone NOT in parentheses to find nothing."""

    field_null_expression: ClassVar[str] = "(*:* AND NOT _exists_:{field})"
    field_not_exists_expression: ClassVar[str] = "(*:* AND NOT _exists_:{field})"

    def convert_condition_not(self, cond: ConditionNOT, state: ConversionState) -> Any:
        text = super().convert_condition_not(cond, state)
        return text if not isinstance(text, str) or text.startswith("_exists_") else f"(*:* AND {text})"


class Untranslatable(ValueError):  # noqa: N818 - said of a rule
    """Why a rule cannot be used, and what to write instead."""

    def __init__(self, what: str, instead: str = "") -> None:
        super().__init__(what)
        self.instead = instead


def query_of(document: dict[str, Any]) -> str:
    """The query that finds what a Sigma rule (a YAML document) describes.

    Raises:
        Untranslatable: saying why.
    """
    try:
        rule = SigmaRule.from_dict(document)
        for detection in rule.detection.detections.values():
            for item in _items(detection):
                _check(item)
        text = " OR ".join(f"({each})" for each in _Backend().convert_rule(rule))
    except SigmaError as error:
        raise Untranslatable(str(error).split(" in <")[0], "See the Sigma specification.") from None
    except (TypeError, AttributeError, KeyError, RecursionError, ValueError) as error:
        if isinstance(error, Untranslatable):
            raise
        raise Untranslatable(f"not a Sigma rule: {error}", "See the Sigma specification.") from None
    if len(text) > QUERY_MAX:
        raise Untranslatable(f"its query is longer than {QUERY_MAX} characters", "Make two rules of it.")
    test_of(text)
    return text


def datasets_of(source: Any) -> tuple[str, ...]:
    """The datasets that a rule's ``logsource`` means; none: all gateways'.

    Raises:
        Untranslatable: it is none of ours.
    """
    service = source.get("service") if isinstance(source, dict) and source.get("product") == "auditship" else None
    if not isinstance(service, str) or service not in SERVICES:
        raise Untranslatable(
            "its logsource is another one",
            "Write logsource: {product: auditship, service: audit}, or service: agent for the agents' own record.",
        )
    return SERVICES[service]


@lru_cache(maxsize=1000)
def test_of(text: str) -> Predicate:
    """The test that a query is, over a document's JSON.

    Raises:
        Untranslatable: the query cannot be understood.
    """
    try:
        return predicate(parse(text), 0)
    except QueryError as error:
        raise Untranslatable(f"its query cannot be used: {error.what}", error.hint) from None


def check_field(name: str) -> None:
    """Passes the name of a field that rules may look at.

    Raises:
        Untranslatable: there is no such field, or it is a time.
    """
    known = fields.under(name)
    if not known:
        raise Untranslatable(f"no document has a field {name!r}", "See the mapping; what gateways add is under audit.extra.")
    if fields.type_of(name) == "date":
        raise Untranslatable(f"{name}: times are not compared in rules", "Use timespan in a correlation.")


def _items(detection: SigmaDetection) -> Iterator[SigmaDetectionItem]:
    for item in detection.detection_items:
        if isinstance(item, SigmaDetection):
            yield from _items(item)
        else:
            yield item


def _check(item: SigmaDetectionItem) -> None:
    if item.field is None:
        raise Untranslatable("it looks for words without a field", "Name the field, such as event.action.")
    for modifier in item.modifiers:
        name = next((each for each, kind in modifier_mapping.items() if kind is modifier), "?")
        if name not in MODIFIERS:
            raise Untranslatable(f"{item.field}|{name} is not taken", _INSTEAD.get(name, f"Taken are: {', '.join(MODIFIERS)}."))
    check_field(item.field)
    for value in item.value:
        if isinstance(value, SigmaString) and not str(value).strip("*"):
            raise Untranslatable(f"{item.field}: an empty value", "Write the value, or field|exists: true.")
