"""Bulk requests: their bodies and their answers. Pure.

A body is, for each entry, one line that says where to, and the document's own bytes; nothing is encoded again::

    {"create":{"_index":"logs-audit.web-30d","_id":"AZ-kTH0AAAECAwQFBgcICQ"}}
    {"@timestamp":"2026-11-23T20:00:00Z", ...}

An answer is judged item by item, never by its HTTP status. One that does not speak of every entry is no answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Final

from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from indexer.document import Entry
from indexer.store.contract import Refused, Verdict
from indexer.store.elasticsearch.connection import Reason, reason_text

FILTER: Final = "items.create.status,items.create.failure_store,items.create.error"
"""What of the answer is wanted: it keeps the answer to some 30 bytes an item."""

LINE_BYTES: Final = 128
"""No line that says where to is longer: 62 bytes, a gateway's name of 50, a retention class of 6."""


def data_stream(dataset: str, retention: str) -> str:
    """The data stream of a kind of document."""
    return f"logs-audit.{dataset}-{retention}"


def batches(entries: Sequence[Entry], bytes_max: int) -> Iterator[tuple[slice, int]]:
    """Entries whose body is at most ``bytes_max``, and the most it has; an entry that alone is larger goes alone."""
    first, size = 0, 0
    for at, entry in enumerate(entries):
        length = len(entry.body) + LINE_BYTES
        if size and size + length > bytes_max:
            yield slice(first, at), size
            first, size = at, 0
        size += length
    if size:
        yield slice(first, len(entries)), size


def encode(entries: Iterable[Entry]) -> bytes:
    """The request's body."""
    parts: list[bytes] = []
    wheres: dict[tuple[str, str], bytes] = {}
    for entry in entries:
        key = entry.dataset, entry.retention
        where = wheres.get(key)
        if where is None:
            where = wheres[key] = b'{"create":{"_index":"%b","_id":"' % data_stream(*key).encode()
        parts += where, entry.id.encode(), b'"}}\n', entry.body, b"\n"
    return b"".join(parts)


class Again(Enum):
    """An item that the cluster could not take now."""

    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"


Outcome = Verdict | Refused | Again


class _Item(Struct):
    status: int
    failure_store: str = ""
    error: Reason = Reason()

    @property
    def why(self) -> str:
        return f"{self.status} {reason_text(self.error)}"


class _Create(Struct):
    create: _Item


class _Items(Struct):
    items: list[_Create]


_items = Decoder(_Items)

_NOT_THE_DOCUMENT: Final = frozenset({"index_closed_exception", "validation_exception", "invalid_index_name_exception"})
"""Errors of status 400 that are about the data stream or the cluster (it may hold no more shards): no document's fault."""


_ALL_CREATED: Final = b'{"items":[%b]}'
_IS_CREATED: Final = b'{"create":{"status":201}}'
"""How Elasticsearch writes it, asked for :data:`FILTER`."""


class Judged(Struct):
    """An answer's outcomes, in the order of the entries."""

    outcomes: list[Outcome]
    quarantined: int = 0
    """How many documents went into a failure store instead of the data stream."""
    again: frozenset[Again] = frozenset()
    """Why some items should be sent again."""
    reason: str = ""
    """Why the first of them was not taken."""


def judge(body: bytes, count: int) -> Judged:
    """The outcome of each of ``count`` entries.

    Raises:
        DecodeError: the answer is not one to that many entries; or another of ``connection.NO_ANSWER``.
    """
    if body == _ALL_CREATED % b",".join([_IS_CREATED] * count):  # as nearly all are
        return Judged([Verdict.CREATED] * count)
    items = [each.create for each in _items.decode(body).items]
    if len(items) != count:
        raise DecodeError(f"an answer to {len(items)} documents, not to {count}")
    outcomes = [_outcome(item) for item in items]
    return Judged(
        outcomes,
        sum(item.failure_store == "used" for item in items),
        frozenset(outcome for outcome in outcomes if isinstance(outcome, Again)),
        next((item.why for item, outcome in zip(items, outcomes, strict=True) if isinstance(outcome, Again)), ""),
    )


def _outcome(item: _Item) -> Outcome:
    status, kind = item.status, item.error.type
    if status == HTTPStatus.CREATED:
        return Verdict.CREATED
    if status == HTTPStatus.CONFLICT and kind == "version_conflict_engine_exception":
        return Verdict.DUPLICATE
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Again.OVERLOADED
    if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE} and kind not in _NOT_THE_DOCUMENT:
        return Refused(item.why)
    return Again.UNAVAILABLE  # the data stream is missing, a shard is not there, the key does not suffice
