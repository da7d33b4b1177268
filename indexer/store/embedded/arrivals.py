"""What has been committed since a cursor.

Rows of a segment are numbered in the order of their commits (writers take turns), so the last number that was read in each
segment is an exact place: nothing behind it can become visible later, nothing is read twice, and a look costs what is new and
no more. A segment of yesterday may still grow while a day begins; older ones do not, and are let be once they were read to the
end. Segments of the future, which a wrong clock has made, are followed like others, and no other one is let be for them. That
one cannot be read now is told when the others were followed.

The cursor is JSON: by the file name of each segment, the number reached, or ``~number``, which is below 0, of one that is let
be. A segment that is not there is remembered as long as older ones are: it may be away for a moment.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
from zstandard import ZstdError

from auditship.errors import ConfigurationError
from indexer.identity import shown_id
from indexer.store.body import document_of
from indexer.store.contract import PAGE_BYTES_MAX, Arrivals, Hit, QueryError, Unavailable
from indexer.store.embedded.predicate import Predicate
from indexer.store.embedded.segment import SegmentName, codec_of, open_to_read, pass_over, segments

PAGE: Final = 1000
"""Hits in one portion."""
GROWING: Final = timedelta(days=1)
DAY: Final = len("2026-11-23")
"""How far a segment's file name tells its day."""

_log = logging.getLogger("auditship.indexer")


def arrivals(
    directory: Path, where: str, parameters: tuple[object, ...], test: Predicate | None, cursor: str | None, *, now_ms: int
) -> Iterator[Arrivals]:
    """Portions of what is new, the last one perhaps without hits; see :class:`~indexer.store.contract.Reader`.

    Args:
        directory: the store's.
        where: SQL that narrows the rows.
        parameters: those of ``where``.
        test: decides over a body; none: the SQL did.
        cursor: where the last look ended.
        now_ms: the wall clock.

    Raises:
        QueryError: the cursor is not one of ours.
        Unavailable: a segment cannot be read now; the others have been given.
    """
    names = segments(directory)
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    growing = max((name.day for name in names if name.day <= today), default=today) - GROWING
    if cursor is None:
        yield Arrivals([], _written({name.path.name: _last(name) if name.day >= growing else ~_last(name) for name in names}))
        return
    reached = _followed(_read(cursor), names, today.isoformat())
    unread: Unavailable | None = None
    for name in names:
        key = name.path.name
        is_more: bool | None = key in reached and (reached[key] >= 0 or name.day >= growing)
        while is_more:
            try:
                hits, number, is_more = _portion(name, where, parameters, test, max(reached[key], ~reached[key]))
            except Unavailable as error:
                unread = unread or error
                break
            reached[key] = ~number if is_more is False and name.day < growing else number
            if hits:
                yield Arrivals(hits, _written(reached))
    yield Arrivals([], _written(reached))
    if unread is not None:
        raise unread


def _followed(reached: Mapping[str, int], names: Sequence[SegmentName], today: str) -> dict[str, int]:
    """The numbers reached: those of the cursor but for segments older than all there are, and 0 in new ones."""
    oldest = min((day for each in reached if (day := each[:DAY]) <= today), default="")
    oldest_there = names[0].day.isoformat() if names else ""
    new = [name.path.name for name in names if name.day.isoformat() >= oldest]
    return dict.fromkeys(new, 0) | {name: number for name, number in reached.items() if name[:DAY] >= oldest_there}


def _portion(
    name: SegmentName, where: str, parameters: tuple[object, ...], test: Predicate | None, after: int
) -> tuple[list[Hit], int, bool | None]:
    """Hits behind a number, the number reached, and whether there may be more; None where nothing can be read, which is told.

    Raises:
        Unavailable: it cannot be read now.
    """
    # Without an index: only the rows behind the number are looked at, in their order.
    sql = f"SELECT number, time, id, dataset, body FROM document NOT INDEXED WHERE number > ? AND number <= ? AND {where}"
    try:
        with closing(open_to_read(name.path)) as connection:
            last = connection.execute("SELECT max(number) FROM document").fetchone()[0] or 0
            if last <= after:
                return [], after, False
            expand = codec_of(connection).expand
            rows = connection.execute(f"{sql} ORDER BY number LIMIT ?", (after, last, *parameters, PAGE))
            found, number, is_full = _taken(name, rows, expand)
    except (sqlite3.DatabaseError, ZstdError, ConfigurationError) as error:
        pass_over(name.path, error)
        return [], after, None
    hits = [hit for hit in found if test is None or test(document_of(hit.body))]
    return (hits, number, True) if is_full else (hits, last, False)


def _taken(name: SegmentName, rows: Iterable[tuple[Any, ...]], expand: Callable[[bytes], bytes]) -> tuple[list[Hit], int, bool]:
    """A portion of hits, no more of them than :data:`PAGE`, nor of bytes; the last one's number, and whether it is full."""
    hits: list[Hit] = []
    number = size = 0
    for number, time_ms, identity, dataset, body in rows:
        hits.append(Hit(shown_id(identity), dataset, name.retention, time_ms, expand(body)))
        size += len(hits[-1].body)
        if size > PAGE_BYTES_MAX:
            return hits, number, True
    return hits, number, len(hits) == PAGE


def _last(name: SegmentName) -> int:
    try:
        with closing(open_to_read(name.path)) as connection:
            return int(connection.execute("SELECT max(number) FROM document").fetchone()[0] or 0)
    except (sqlite3.DatabaseError, ConfigurationError) as error:
        pass_over(name.path, error)
        return 0


def _written(reached: Mapping[str, int]) -> str:
    return orjson.dumps(reached, option=orjson.OPT_SORT_KEYS).decode()


def _read(cursor: str) -> dict[str, int]:
    try:
        reached = orjson.loads(cursor)
    except orjson.JSONDecodeError:
        reached = None
    if not isinstance(reached, dict) or not all(type(number) is int for number in reached.values()):
        raise QueryError("the cursor is not one of the embedded store", "Its state belongs to another store: begin anew.")
    return reached
