"""Queries, put in Elasticsearch's words. Pure.

The text is the cluster's own ``query_string``, so that it means here what it means in Kibana's search bar; the everyday
filters are terms, which the mapping's normalizer compares without regard to case.

Order: ``@timestamp``, then ``event.id``. Ids repeat in no data stream, so the order is total and a cursor continues exactly;
``_id`` itself cannot be sorted by, which is why ``event.id`` has doc values (18 bytes a document).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import DecodeError
from msgspec.json import decode, encode

from auditship.block import RESERVED_GATEWAYS
from indexer.store.contract import Query, QueryError
from indexer.store.fields import ALL_TEXT

COMPLETE: Final = {"allow_partial_search_results": "false"}
"""An answer that leaves a part of the data out is none."""
ANYWHERE: Final = {"ignore_unavailable": "true", "allow_no_indices": "true"}
"""There may be no data stream of a kind yet."""
_ACTOR: Final = ("user.id", "user.name", "user.full_name", "user.email")


def target(query: Query) -> str:
    """The data streams that a query is put to, as a pattern."""
    if not query.datasets:
        return ",".join(["logs-audit.*-*", *(f"-logs-audit.{name}-*" for name in sorted(RESERVED_GATEWAYS))])
    return ",".join(f"logs-audit.{name}-*" for name in query.datasets)


def question(query: Query) -> dict[str, Any]:
    """The query itself: all of its conditions, none of them scored."""
    conditions: list[dict[str, Any]] = []
    if query.text.strip():
        conditions.append(
            {"query_string": {"query": query.text, "fields": list(ALL_TEXT), "lenient": True, "time_zone": "UTC"}}
        )
    span = {"gte": query.since_ms, "lt": query.until_ms}
    if bounds := {bound: ms for bound, ms in span.items() if ms is not None}:
        conditions.append({"range": {"@timestamp": {**bounds, "format": "epoch_millis"}}})
    if query.organizations:
        conditions.append({"terms": {"organization.id": list(query.organizations)}})
    if query.severities:
        conditions.append({"terms": {"audit.severity": list(query.severities)}})
    terms = {"organization.id": query.organization, "event.action": query.action, "event.outcome": query.outcome}
    conditions += [{"term": {name: value}} for name, value in terms.items() if value is not None]
    if query.actor is not None:
        conditions.append({"bool": {"should": [{"term": {name: query.actor}} for name in _ACTOR], "minimum_should_match": 1}})
    return {"bool": {"filter": conditions}}


def order(direction: str) -> list[Mapping[str, Any]]:
    """The sort that hits come in; ``desc`` is newest first."""
    return [{"@timestamp": direction}, {"event.id": direction}]


def histogram(interval_ms: int) -> dict[str, Any]:
    """Counts over time by severity."""
    severity = {"terms": {"field": "audit.severity", "size": 10}}
    by_time = {"field": "@timestamp", "fixed_interval": f"{interval_ms}ms", "min_doc_count": 1}
    return {"spans": {"date_histogram": by_time, "aggs": {"severities": severity}}}


def facets(fields: Sequence[str], limit: int) -> dict[str, Any]:
    """The most frequent values of fields."""
    return {field: {"terms": {"field": field, "size": limit}} for field in fields}


def cursor_of(sort: Sequence[Any]) -> str:
    """A place in the order, as text to be handed back."""
    return base64.urlsafe_b64encode(encode(sort)).decode()


def place(cursor: str) -> list[Any]:
    """The place that a cursor names.

    Raises:
        QueryError: it is not a cursor.
    """
    try:
        found = decode(base64.b64decode(cursor, altchars=b"-_", validate=True), type=tuple[int, str])
    except (binascii.Error, ValueError, DecodeError):
        raise QueryError("the cursor is not one that a search gave", "Search again without it.") from None
    return list(found)
