"""How what has newly become visible is found. Pure.

Documents become visible in no order: several indexers write, and each shard refreshes when it does. So each look counts, by
second of ``event.ingested``, what there is from a while before the last look on, and reads those seconds in which there is more
than the caller knows of. A quiet look is one small aggregation, and a flood is not read again and again.

The cursor is the time of the last look by our own clock, so an indexer whose clock is ahead cannot move it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from indexer.store.contract import Query, QueryError
from indexer.store.elasticsearch.question import question

ARRIVALS_PAGE: Final = 1000
SLICE_MS: Final = 36_000_000
"""What is counted at once: its 36,000 seconds are within the 65,536 buckets that Elasticsearch gives."""
FOREVER_MS: Final = 2**62


def cursor_at(now_ms: int) -> str:
    """The cursor of a look at that time."""
    return str(now_ms)


def since_of(cursor: str, now_ms: int) -> int:
    """The time of the last look, which was not in the future.

    Raises:
        QueryError: it is not a cursor.
    """
    if not (cursor.isascii() and cursor.isdigit()):
        raise QueryError("the cursor is not one of Elasticsearch's", "Its state belongs to another store: begin anew.")
    return min(int(cursor), now_ms)


def slices(first_ms: int, now_ms: int) -> Iterator[tuple[int, int | None]]:
    """The time from then on in parts, each from a whole second to before another; the last one has no end."""
    low_ms = first_ms // 1000 * 1000
    while low_ms + SLICE_MS < now_ms:
        yield low_ms, low_ms + SLICE_MS
        low_ms += SLICE_MS
    yield low_ms, None


def counts_of(query: Query, low_ms: int, high_ms: int | None) -> dict[str, Any]:
    """How many arrived in each second between two times."""
    by_second = {"field": "event.ingested", "fixed_interval": "1s", "min_doc_count": 1}
    return {"query": _arrived(query, low_ms, high_ms), "size": 0, "aggs": {"spans": {"date_histogram": by_second}}}


def arrivals_of(query: Query, low_ms: int, high_ms: int, after: list[Any] | None) -> dict[str, Any]:
    """The documents that arrived between two times, in that order."""
    body: dict[str, Any] = {
        "query": _arrived(query, low_ms, high_ms),
        "sort": [{"event.ingested": "asc"}, {"event.id": "asc"}, {"@timestamp": "asc"}],
        "size": ARRIVALS_PAGE,
        "track_total_hits": False,
    }
    return body if after is None else body | {"search_after": after}


def spans_to_read(there: Mapping[int, int], known: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Spans, from a millisecond to before another, of seconds in which there is more than is known; adjoining ones are one."""
    low = high = None
    for second in sorted(second for second, count in there.items() if count > known.get(second, 0)):
        if high == second:
            high = second + 1
            continue
        if low is not None and high is not None:
            yield low * 1000, high * 1000
        low, high = second, second + 1
    if low is not None and high is not None:
        yield low * 1000, high * 1000


def _arrived(query: Query, low_ms: int, high_ms: int | None) -> dict[str, Any]:
    asked = question(query)
    bounds = {"gte": low_ms} if high_ms is None else {"gte": low_ms, "lt": high_ms}
    asked["bool"]["filter"].append({"range": {"event.ingested": {**bounds, "format": "epoch_millis"}}})
    return asked
