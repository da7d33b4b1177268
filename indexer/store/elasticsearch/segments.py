"""Whose documents each backing index holds.

Every organisation of every index is counted, in as many pages as that takes: one that is left out would be a legal hold that
does not hold. For the same reason a page that leaves out a part of the data is no answer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, Final

from msgspec import DecodeError, Struct, field
from msgspec.json import Decoder, encode

from indexer.store.contract import Segment, Unavailable
from indexer.store.elasticsearch.connection import NO_ANSWER, Connection
from indexer.store.elasticsearch.question import ANYWHERE, COMPLETE

PAGE: Final = 10_000
"""Pairs of an index and an organisation in one answer; Elasticsearch gives 65,536 at most."""
BACKING_INDEX: Final = re.compile(r"\.ds-logs-audit\.(?P<dataset>\w+)-(?P<retention>\d+d)-\d{4}\.\d\d\.\d\d-\d{6,}")

_PATH: Final = "/logs-audit.*/_search"
_SOURCES: Final = [
    {"index": {"terms": {"field": "_index"}}},
    {"organization": {"terms": {"field": "organization.id", "missing_bucket": True}}},
]
"""Lines that were rejected are nobody's, and stand in an index nonetheless."""


class _Pair(Struct):
    index: str
    organization: str | None


class _Held(Struct):
    key: _Pair
    doc_count: int


class _Page(Struct):
    buckets: list[_Held]
    after_key: _Pair | None = None


class _Aggregations(Struct):
    held: _Page


class _Shards(Struct):
    total: int


class _Answer(Struct):
    shards: _Shards = field(name="_shards")
    aggregations: _Aggregations | None = None
    """None where there is no index."""


_answer = Decoder(_Answer)


def segments(connection: Connection) -> list[Segment]:
    """Backing indices, with whose documents they hold; by name.

    Raises:
        Unavailable: the cluster cannot tell now.
    """
    holders: defaultdict[str, dict[str, int]] = defaultdict(dict)
    after: _Pair | None = None
    while True:
        page = _page(connection, after)
        for each in page.buckets:
            held = holders[each.key.index]
            if each.key.organization is not None:
                held[each.key.organization] = each.doc_count
        after = page.after_key
        if after is None:
            break
    named = ((name, BACKING_INDEX.fullmatch(name)) for name in sorted(holders))
    return [Segment(name, match["retention"], holders[name]) for name, match in named if match]


def _page(connection: Connection, after: _Pair | None) -> _Page:
    composite: dict[str, Any] = {"size": PAGE, "sources": _SOURCES}
    if after is not None:
        composite["after"] = after
    body = {"size": 0, "track_total_hits": False, "aggs": {"held": {"composite": composite}}}
    answer = connection.call("POST", _PATH, encode(body), params=COMPLETE | ANYWHERE)
    if not answer.ok:
        raise Unavailable(f"Elasticsearch at {connection.where}: {answer.status} {answer.reason()}")
    try:
        found = _answer.decode(answer.body)
        if found.aggregations is None and found.shards.total:
            raise DecodeError("nothing is said of any index")
        return found.aggregations.held if found.aggregations else _Page([])
    except NO_ANSWER as error:
        raise Unavailable(f"{connection.where} did not say whose documents it holds: {error}") from None
