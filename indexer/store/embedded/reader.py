"""Finds documents in all segments, also while they are being written.

Each segment gives its hits in order; they are merged, and a segment is opened only when its time has come, so that the newest
page is found in the newest files whatever their number; at most :data:`OPEN_MAX` are open at once. A search that takes longer
than it may is ended with a :class:`~indexer.store.contract.QueryError`; a damaged segment is logged, and the others are still
searched. What cannot be read for another reason is :class:`~indexer.store.contract.Unavailable`, never just left out.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import json
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from zstandard import ZstdError

from auditship.errors import ConfigurationError
from indexer.document import EVENT_SEVERITY
from indexer.identity import shown_id
from indexer.store.body import document_of
from indexer.store.contract import (
    PAGE_BYTES_MAX,
    Arrivals,
    Bucket,
    Hit,
    Known,
    Page,
    Person,
    Query,
    QueryError,
    Segment,
    Sightings,
)
from indexer.store.embedded.arrivals import arrivals
from indexer.store.embedded.condition import Condition, columns, condition, filters
from indexer.store.embedded.predicate import Predicate, predicate
from indexer.store.embedded.seen import Seen
from indexer.store.embedded.segment import (
    SegmentName,
    Unmade,
    codec_of,
    is_gone,
    is_interrupted,
    open_to_read,
    pass_over,
    segments,
)
from indexer.store.fields import check_counted, is_folded, type_of, values
from indexer.store.query import Bool, parse

QUERY_TIMEOUT_S: Final = 30.0
OPEN_MAX: Final = 50
"""Segments of which one search holds its place open, with three files each; it finds its place in others again."""
_STEPS: Final = 10_000
"""SQLite's instructions between two looks at the clock."""
_log = logging.getLogger("auditship.indexer")

_Place = tuple[int, bytes]
"""Where a hit stands in the order: its time, then its id."""


class _Wanted(NamedTuple):
    """A query, ready: the SQL that narrows it, and the test that decides (none where the SQL decides already)."""

    where: str
    parameters: tuple[object, ...]
    test: Predicate | None


class EmbeddedReader:
    """The side of the store that finds.

    Args:
        directory: the store's.
        clock_ms: the wall clock, for ``now`` in queries.
    """

    def __init__(self, directory: Path, clock_ms: Callable[[], int], *, timeout_s: float = QUERY_TIMEOUT_S) -> None:
        self._directory = directory
        self._clock_ms = clock_ms
        self._timeout_s = timeout_s

    def search(self, query: Query, *, limit: int = 50, cursor: str | None = None) -> Page:
        """The newest hits by ``@timestamp``, then by id; fewer than the limit where their bodies are large.

        Raises:
            QueryError: the query cannot be understood, or takes too long.
            Unavailable: a segment cannot be read now.
        """
        after = None if cursor is None else _place(cursor)
        hits: list[Hit] = []
        size = 0
        for hit in self._hits(self._wanted(query), newest_first=True, after=after, timeout_s=self._timeout_s):
            size += len(hit.body)
            if hits and (len(hits) >= limit or size > PAGE_BYTES_MAX):
                return Page(hits, _cursor(hits[-1]))
            hits.append(hit)
        return Page(hits)

    def count(self, query: Query) -> int:
        """How many documents the query finds."""
        wanted = self._wanted(query)
        if wanted.test is not None:
            return sum(1 for _ in self._hits(wanted, newest_first=True, timeout_s=self._timeout_s))
        return sum(row[0] for row in self._rows(f"SELECT count(*) FROM document WHERE {wanted.where}", wanted.parameters))

    def histogram(self, query: Query, *, interval_ms: int) -> list[Bucket]:
        """Events over time by severity; empty buckets are left out."""
        wanted = self._wanted(query)
        counts: dict[int, Counter[str]] = {}
        if wanted.test is None:
            sql = f"SELECT time / {interval_ms:d} - (time % {interval_ms:d} < 0), severity, count(*) FROM document"
            for span, severity, count in self._rows(f"{sql} WHERE {wanted.where} GROUP BY 1, 2", wanted.parameters):
                counts.setdefault(span * interval_ms, Counter())[severity] += count
        else:
            for hit in self._hits(wanted, newest_first=True, timeout_s=self._timeout_s):
                found = next(values(document_of(hit.body), "audit.severity"), None)
                counts.setdefault(hit.time_ms // interval_ms * interval_ms, Counter())[str(found)] += 1
        return [
            Bucket(start, {name: count for name, count in each.items() if name in EVENT_SEVERITY})
            for start, each in sorted(counts.items())
        ]

    def facets(self, query: Query, fields: Sequence[str], *, limit: int = 10) -> dict[str, list[tuple[str, int]]]:
        """The most frequent values of each field with their counts, as they are compared: names in lower case."""
        check_counted(fields)
        counts: dict[str, Counter[str]] = {field: Counter() for field in fields}
        for hit in self._hits(self._wanted(query), newest_first=True, timeout_s=self._timeout_s):
            document = document_of(hit.body)
            for field in fields:
                if type_of(field):
                    counts[field].update({_shown(value, folds=is_folded(field)) for value in values(document, field)})
        return {field: sorted(each.items(), key=partial(_rank, type_of(field)))[:limit] for field, each in counts.items()}

    def actor_history(self, organization: str, actor: str, *, since_ms: int, limit: int = 1000) -> list[Hit]:
        """What an actor (by ``user.id``) did in an organisation, newest first."""
        quoted = json.dumps(actor, ensure_ascii=False)
        return self.search(Query(f"user.id:{quoted}", since_ms=since_ms, organization=organization), limit=limit).hits

    def sightings(
        self, people: Sequence[Person], *, since_ms: int, until_ms: int, relays: Collection[int], timeout_s: float
    ) -> dict[Person, Sightings]:
        """Where people's successes came from, between two times; who had none is left out."""
        return Seen(self._directory, since_ms, until_ms, relays, time.monotonic() + timeout_s).of(people)

    def scan(self, query: Query) -> Iterator[Hit]:
        """Every hit, oldest first."""
        yield from self._hits(self._wanted(query), newest_first=False)

    def arrivals(self, query: Query, cursor: str | None, *, known: Known, overlap_ms: int) -> Iterator[Arrivals]:
        """What was committed since a cursor, each document once: nothing becomes visible late here."""
        del known, overlap_ms
        wanted = self._wanted(query)
        yield from arrivals(self._directory, wanted.where, wanted.parameters, wanted.test, cursor, now_ms=self._clock_ms())

    def segments(self) -> list[Segment]:
        """The files, with whose documents they hold; by name."""
        return [Segment(name.path.name, name.retention, _holders(name)) for name in segments(self._directory)]

    def close(self) -> None:
        """Nothing is held between calls."""

    def _wanted(self, query: Query) -> _Wanted:
        now_ms = self._clock_ms()
        node = Bool(must=(filters(query), parse(query.text)))
        narrowed = condition(node, now_ms)
        test = predicate(node, now_ms)
        own = columns(query)
        whole = Condition(f"{own.sql} AND {narrowed.sql}", own.parameters + narrowed.parameters, narrowed.is_exact)
        return _Wanted(whole.sql, whole.parameters, None if whole.is_exact else test)

    def _hits(
        self, wanted: _Wanted, *, newest_first: bool, after: _Place | None = None, timeout_s: float | None = None
    ) -> Iterator[Hit]:
        """Hits of all segments in order; a segment is opened when the merge has come to its nearest time."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        sign = -1 if newest_first else 1
        spans = list(self._spans())
        waiting: list[tuple[tuple[int, ...], int, Hit | None]] = [
            ((sign * (high if newest_first else low),), number, None) for number, (_, low, high) in enumerate(spans)
        ]
        heapq.heapify(waiting)
        reached: dict[int, _Place] = {}
        opened: dict[int, Iterator[tuple[_Place, Hit]]] = {}
        while waiting:
            _, number, hit = heapq.heappop(waiting)
            if hit is not None:
                yield hit
            if number not in opened:
                behind = reached.get(number, after)
                opened[number] = _segment_hits(
                    spans[number][0], wanted, newest_first=newest_first, after=behind, deadline=deadline
                )
            if (following := next(opened[number], None)) is None:
                del opened[number]
                continue
            reached[number], hit = following
            time_ms, packed = reached[number]
            order = tuple(-byte for byte in packed) if newest_first else tuple(packed)
            heapq.heappush(waiting, ((sign * time_ms, *order), number, hit))
            if len(opened) > OPEN_MAX:  # whose next hit is the farthest will be asked last
                del opened[max(each for each in waiting if each[1] in opened)[1]]

    def _spans(self) -> Iterator[tuple[SegmentName, int, int]]:
        """Segments that hold anything, with their first and last time."""
        for name in segments(self._directory):
            # asked one by one each is a look at an end of the index; together they would read all of it
            row = _one(name, "SELECT (SELECT min(time) FROM document), (SELECT max(time) FROM document)")
            if row is not None and row[0] is not None:
                yield name, row[0], row[1]

    def _rows(self, sql: str, parameters: tuple[object, ...]) -> Iterator[tuple[Any, ...]]:
        """A statement's rows in every segment."""
        deadline = time.monotonic() + self._timeout_s
        for name in segments(self._directory):
            yield from _select(name, sql, parameters, deadline)


def _segment_hits(
    name: SegmentName, wanted: _Wanted, *, newest_first: bool, after: _Place | None, deadline: float | None
) -> Iterator[tuple[_Place, Hit]]:
    """A segment's hits in order."""
    where, parameters = wanted.where, wanted.parameters
    if after is not None:
        where, parameters = f"{where} AND (time, id) {'<' if newest_first else '>'} (?, ?)", (*parameters, *after)
    direction = "DESC" if newest_first else "ASC"
    sql = f"SELECT time, id, dataset, body FROM document WHERE {where} ORDER BY time {direction}, id {direction}"
    for moment, identity, dataset, body in _select(name, sql, parameters, deadline, bodies_at=3):
        if wanted.test is None or wanted.test(document_of(body)):
            yield (moment, identity), Hit(shown_id(identity), dataset, name.retention, moment, body)


def _select(
    name: SegmentName, sql: str, parameters: tuple[object, ...], deadline: float | None, *, bodies_at: int | None = None
) -> Iterator[tuple[Any, ...]]:
    """Rows of one segment, bodies in a column of theirs expanded; none of one that is gone or damaged."""
    try:
        with closing(open_to_read(name.path)) as connection:
            if deadline is not None:
                connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
            rows = connection.execute(sql, parameters)
            if bodies_at is None:
                yield from rows
            else:
                expand = codec_of(connection).expand
                for row in rows:
                    if deadline is not None and time.monotonic() > deadline:
                        raise _too_long()
                    yield *row[:bodies_at], expand(row[bodies_at]), *row[bodies_at + 1 :]
    except (sqlite3.Error, ZstdError, ConfigurationError) as error:
        if isinstance(error, sqlite3.Error) and is_interrupted(error):
            raise _too_long() from None
        pass_over(name.path, error)


def _too_long() -> QueryError:
    return QueryError("the search takes too long", "Narrow it: a shorter time, an organisation, a whole value.")


def _one(name: SegmentName, sql: str) -> tuple[Any, ...] | None:
    return next(_select(name, sql, (), None), None)


def _holders(name: SegmentName) -> dict[str, int] | None:
    """How many documents of which organisation a segment holds; None where it cannot be read to its end, which is told."""
    sql = "SELECT organization, count(*) FROM document WHERE organization IS NOT NULL GROUP BY organization"
    try:
        with closing(open_to_read(name.path)) as connection:
            return dict(connection.execute(sql))
    except Unmade:
        return {}
    except (sqlite3.Error, ConfigurationError) as error:
        if is_gone(name.path):
            return {}
        _log.error("%s: whose documents it holds cannot be read: %s", name.path, error)
        return None


def _rank(kind: str | None, pair: tuple[str, int]) -> tuple[int, int, str]:
    """Where a value stands among those of its field: the most frequent first, then numbers by what they say, and texts."""
    value, count = pair
    return -count, int(value) if kind == "long" and value.removeprefix("-").isdecimal() else 0, value


def _shown(value: Any, *, folds: bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.lower() if folds and isinstance(value, str) else str(value)


def _cursor(hit: Hit) -> str:
    """A place in the order, as text to be handed back."""
    return base64.urlsafe_b64encode(orjson.dumps([hit.time_ms, hit.id])).decode()


def _place(cursor: str) -> _Place:
    try:
        time_ms, identity = orjson.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        packed = base64.b64decode(identity + "==", altchars=b"-_", validate=True)
        if type(time_ms) is int and -(2**63) <= time_ms < 2**63:
            return time_ms, packed
    except (binascii.Error, ValueError, TypeError):
        pass
    raise QueryError("the cursor is not one that a search gave", "Search again without it.")
