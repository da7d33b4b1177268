"""Finds documents, with the reader's key.

Promises: what :class:`~indexer.store.contract.Reader` says. A hit's body is the very bytes that were stored: they are cut
out of the answer, never decoded and written again. An answer that leaves out a part of the data is refused by the cluster
(``allow_partial_search_results=false``) and comes as :class:`~indexer.store.contract.Unavailable`.

What was appended is found within a second, the refresh interval. ``scan`` sees the moment at which it began (a point in
time), in pages whose size follows that of the documents, so that any number of them needs little memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

from msgspec import Raw, Struct, field
from msgspec.json import Decoder, encode

from auditship import clock
from indexer.settings import ElasticsearchSettings
from indexer.store.contract import (
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
    Unavailable,
)
from indexer.store.elasticsearch.arrivals import (
    ARRIVALS_PAGE,
    FOREVER_MS,
    arrivals_of,
    counts_of,
    cursor_at,
    since_of,
    slices,
    spans_to_read,
)
from indexer.store.elasticsearch.connection import NO_ANSWER, Answer, connect
from indexer.store.elasticsearch.question import (
    ANYWHERE,
    COMPLETE,
    cursor_of,
    facets,
    histogram,
    order,
    place,
    question,
    target,
)
from indexer.store.elasticsearch.segments import BACKING_INDEX, segments
from indexer.store.elasticsearch.sightings import SightingsAnswer, answer_decoder, sightings_of, sightings_question
from indexer.store.fields import check_counted

WINDOW: Final = 10_000
"""Hits that Elasticsearch gives at once (``index.max_result_window``), so a page has no more."""
SCAN_PAGE_BYTES: Final = 4 << 20
SCAN_PAGE_HITS_MIN: Final = 20
SCAN_PAGE_HITS_MAX: Final = 2000
SCAN_KEEP_ALIVE: Final = "5m"
"""How long a scan's point in time outlives a reader that has stopped."""


class _Hit(Struct):
    id: str = field(name="_id")
    index: str = field(name="_index")
    source: Raw = field(name="_source")
    sort: list[int | str]


class _Hits(Struct):
    hits: list[_Hit]


class _Found(Struct):
    hits: _Hits
    pit_id: str = ""


class _Severity(Struct):
    key: str
    doc_count: int


class _Severities(Struct):
    buckets: list[_Severity]


class _Span(Struct):
    key: int
    doc_count: int = 0
    severities: _Severities = field(default_factory=lambda: _Severities([]))


class _Spans(Struct):
    buckets: list[_Span]


class _Histogram(Struct):
    spans: _Spans


class _Term(Struct):
    key: str | int | float | bool
    doc_count: int
    key_as_string: str | None = None


class _Terms(Struct):
    buckets: list[_Term]


class _HistogramAnswer(Struct):
    aggregations: _Histogram


class _FacetsAnswer(Struct):
    aggregations: dict[str, _Terms] = field(default_factory=dict)


class _Total(Struct):
    value: int


class _Totals(Struct):
    total: _Total


class _Count(Struct):
    hits: _Totals


class _Pit(Struct):
    id: str


_found = Decoder(_Found)
_count = Decoder(_Count)
_pit = Decoder(_Pit)
_spans = Decoder(_HistogramAnswer)
_terms = Decoder(_FacetsAnswer)


class ElasticsearchReader:
    """The reader's side of a cluster."""

    def __init__(self, settings: ElasticsearchSettings) -> None:
        self._connection = connect(settings, "reader")

    def search(self, query: Query, *, limit: int = 50, cursor: str | None = None) -> Page:
        """The newest hits by ``@timestamp``, then by id; ``cursor`` continues behind a page.

        Raises:
            QueryError: the query cannot be understood.
            Unavailable: the cluster cannot answer now.
        """
        limit = min(limit, WINDOW)
        size = min(limit + 1, WINDOW)
        body = {"query": question(query), "sort": order("desc"), "size": size, "track_total_hits": False}
        if cursor is not None:
            body["search_after"] = place(cursor)
        hits = self._ask(_found, f"/{target(query)}/_search", body, COMPLETE | ANYWHERE).hits.hits
        more = len(hits) > limit
        if len(hits) == limit == WINDOW:
            body |= {"size": 1, "search_after": hits[-1].sort}
            more = bool(self._ask(_found, f"/{target(query)}/_search", body, COMPLETE | ANYWHERE).hits.hits)
        return Page([_hit(each) for each in hits[:limit]], cursor_of(hits[limit - 1].sort) if more else None)

    def count(self, query: Query) -> int:
        """How many documents the query finds."""
        body = {"query": question(query), "size": 0, "track_total_hits": True}
        found: _Count = self._ask(_count, f"/{target(query)}/_search", body, COMPLETE | ANYWHERE)
        return found.hits.total.value

    def histogram(self, query: Query, *, interval_ms: int) -> list[Bucket]:
        """Events over time by severity; empty buckets are left out."""
        body = {"query": question(query), "size": 0, "aggs": histogram(interval_ms)}
        spans = self._ask(_spans, f"/{target(query)}/_search", body, COMPLETE | ANYWHERE).aggregations.spans.buckets
        return [Bucket(span.key, {each.key: each.doc_count for each in span.severities.buckets}) for span in spans]

    def facets(self, query: Query, fields: Sequence[str], *, limit: int = 10) -> dict[str, list[tuple[str, int]]]:
        """The most frequent values of each field with their counts, as they are compared: names in lower case."""
        check_counted(fields)
        body = {"query": question(query), "size": 0, "aggs": facets(fields, limit)}
        found = self._ask(_terms, f"/{target(query)}/_search", body, COMPLETE | ANYWHERE).aggregations
        return {
            name: [(each.key_as_string or str(each.key), each.doc_count) for each in found[name].buckets]
            if name in found
            else []
            for name in fields
        }

    def actor_history(self, organization: str, actor: str, *, since_ms: int, limit: int = 1000) -> list[Hit]:
        """What an actor (by ``user.id``) did in an organisation, newest first."""
        query = Query(since_ms=since_ms, organization=organization)
        asked = question(query)
        asked["bool"]["filter"].append({"term": {"user.id": actor}})
        body = {"query": asked, "sort": order("desc"), "size": limit, "track_total_hits": False}
        return [_hit(each) for each in self._ask(_found, f"/{target(query)}/_search", body, COMPLETE | ANYWHERE).hits.hits]

    def sightings(
        self, people: Sequence[Person], *, since_ms: int, until_ms: int, relays: Collection[int], timeout_s: float
    ) -> dict[Person, Sightings]:
        """Where people's successes came from, between two times; who had none is left out.

        Raises:
            Unavailable: the cluster cannot tell, or not in that time.
        """
        body = sightings_question(people, since_ms, until_ms, relays, timeout_s)
        path, params = f"/{target(Query())}/_search", COMPLETE | ANYWHERE
        answer = self._connection.call("POST", path, encode(body), params=params, timeout_s=timeout_s + 1)
        found: SightingsAnswer = self._decoded(answer_decoder, answer)
        if found.timed_out:
            raise Unavailable(f"Elasticsearch at {self._connection.where}: looking up where people were takes too long")
        return sightings_of(found, people)

    def scan(self, query: Query) -> Iterator[Hit]:
        """Every hit, oldest first."""
        opened = self._ask(_pit, f"/{target(query)}/_pit", None, COMPLETE | ANYWHERE | {"keep_alive": SCAN_KEEP_ALIVE})
        pit, after, size = opened.id, None, SCAN_PAGE_HITS_MIN
        try:
            while True:
                body: dict[str, Any] = {
                    "query": question(query),
                    "sort": order("asc"),
                    "size": size,
                    "track_total_hits": False,
                    "pit": {"id": pit, "keep_alive": SCAN_KEEP_ALIVE},
                }
                if after is not None:
                    body["search_after"] = after
                found = self._ask(_found, "/_search", body, COMPLETE)
                hits = [_hit(each) for each in found.hits.hits]
                yield from hits
                if len(hits) < size:
                    return
                pit, after = found.pit_id or pit, found.hits.hits[-1].sort
                bytes_each = sum(len(hit.body) for hit in hits) // size + 1
                size = min(max(SCAN_PAGE_BYTES // bytes_each, SCAN_PAGE_HITS_MIN), SCAN_PAGE_HITS_MAX)
        finally:
            self._forget(pit)

    def arrivals(self, query: Query, cursor: str | None, *, known: Known, overlap_ms: int) -> Iterator[Arrivals]:
        """What has become visible since a cursor: those seconds of arrival are read in which there is more than is known."""
        now_ms = clock.now_ms()
        since_ms = now_ms if cursor is None else since_of(cursor, now_ms)
        for low_ms, high_ms in slices(since_ms - overlap_ms, now_ms):
            for span in spans_to_read(self._arrived(query, low_ms, high_ms), known(low_ms, high_ms or FOREVER_MS)):
                for hits in self._arrivals(query, *span):
                    yield Arrivals(hits, cursor_at(max(since_ms, low_ms)), is_old=cursor is None)
        yield Arrivals([], cursor_at(now_ms))

    def _arrived(self, query: Query, low_ms: int, high_ms: int | None) -> dict[int, int]:
        """How many arrived, by second."""
        body = counts_of(query, low_ms, high_ms)
        found = self._ask(_spans, f"/{target(query)}/_search", body, COMPLETE | ANYWHERE).aggregations.spans.buckets
        return {span.key // 1000: span.doc_count for span in found}

    def _arrivals(self, query: Query, low_ms: int, high_ms: int) -> Iterator[list[Hit]]:
        """What arrived between two times, in portions."""
        after = None
        while True:
            body = arrivals_of(query, low_ms, high_ms, after)
            hits = self._ask(_found, f"/{target(query)}/_search", body, COMPLETE | ANYWHERE).hits.hits
            if hits:
                yield [_hit(each, time_at=-1) for each in hits]
            if len(hits) < ARRIVALS_PAGE:
                return
            after = hits[-1].sort

    def segments(self) -> list[Segment]:
        """Backing indices, with whose documents they hold; by name."""
        return segments(self._connection)

    def close(self) -> None:
        """Lets the connections go."""
        self._connection.close()

    def _forget(self, pit: str) -> None:
        """Closes a point in time; one that cannot be closed ends by itself."""
        try:
            self._connection.call("DELETE", "/_pit", encode({"id": pit}))
        except Unavailable:
            return

    def _ask(self, decoder: Decoder[Any], path: str, body: object, params: dict[str, str]) -> Any:
        """One question, and its answer in the decoder's shape."""
        answer = self._connection.call("POST", path, None if body is None else encode(body), params=params)
        if answer.status == HTTPStatus.BAD_REQUEST:
            raise QueryError(f"the query cannot be understood: {answer.reason()}", "See Lucene's query syntax.")
        return self._decoded(decoder, answer)

    def _decoded(self, decoder: Decoder[Any], answer: Answer) -> Any:
        try:
            if not answer.ok:
                raise Unavailable(f"Elasticsearch at {self._connection.where}: {answer.status} {answer.reason()}")
            return decoder.decode(answer.body)
        except NO_ANSWER as error:
            raise Unavailable(f"{self._connection.where} gave no answer to a search: {error}") from None


def _hit(hit: _Hit, *, time_at: int = 0) -> Hit:
    """A hit, whose time stands at that place of its sort values."""
    named, time_ms = BACKING_INDEX.fullmatch(hit.index), hit.sort[time_at]
    if named is None or not isinstance(time_ms, int):
        raise Unavailable(
            f"{hit.index} is not an index of an audit data stream", "See the templates and aliases of the cluster."
        )
    return Hit(hit.id, named["dataset"], named["retention"], time_ms, bytes(hit.source))
