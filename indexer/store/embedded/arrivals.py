"""What has been committed since a cursor.

Rows of a segment are numbered in the order of their commits (writers take turns), so the last number that was read in each
segment is an exact place: nothing behind it can become visible later, nothing is read twice, and a look costs what is new and
no more. A segment of yesterday may still grow while a day begins; older ones do not.

The cursor is JSON: the number reached, by the segment's file name.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

import orjson
from zstandard import ZstdError

from auditship.errors import ConfigurationError
from indexer.identity import shown_id
from indexer.store.body import document_of
from indexer.store.contract import Arrivals, Hit, QueryError
from indexer.store.embedded.predicate import Predicate
from indexer.store.embedded.segment import SegmentName, Unmade, codec_of, open_to_read, segments

PAGE: Final = 1000
"""Hits in one portion."""
GROWING: Final = timedelta(days=1)

_log = logging.getLogger("auditship.indexer")


def arrivals(
    directory: Path, where: str, parameters: tuple[object, ...], test: Predicate | None, cursor: str | None
) -> Iterator[Arrivals]:
    """Portions of what is new, the last one perhaps without hits; see :class:`~indexer.store.contract.Reader`.

    Args:
        directory: the store's.
        where: SQL that narrows the rows.
        parameters: those of ``where``.
        test: decides over a body; none: the SQL did.
        cursor: where the last look ended.

    Raises:
        QueryError: the cursor is not one of ours.
    """
    names = segments(directory)
    if cursor is None:
        yield Arrivals([], _written({name.path.name: _last(name) for name in names}))
        return
    reached = _read(cursor)
    reached = {name.path.name: reached.get(name.path.name, 0) for name in names if name.day >= names[-1].day - GROWING}
    for name in names:
        is_more = name.path.name in reached
        while is_more:
            hits, reached[name.path.name], is_more = _portion(name, where, parameters, test, reached[name.path.name])
            if hits:
                yield Arrivals(hits, _written(reached))
    yield Arrivals([], _written(reached))


def _portion(
    name: SegmentName, where: str, parameters: tuple[object, ...], test: Predicate | None, after: int
) -> tuple[list[Hit], int, bool]:
    """Hits behind a number, the number reached, and whether there may be more. A damaged segment is told, and gives none."""
    # Without an index: only the rows behind the number are looked at, in their order.
    sql = f"SELECT number, time, id, dataset, body FROM document NOT INDEXED WHERE number > ? AND number <= ? AND {where}"
    try:
        with closing(open_to_read(name.path)) as connection:
            last = connection.execute("SELECT max(number) FROM document").fetchone()[0] or 0
            if last <= after:
                return [], after, False
            expand = codec_of(connection).expand
            rows = connection.execute(f"{sql} ORDER BY number LIMIT ?", (after, last, *parameters, PAGE)).fetchall()
            found = [Hit(shown_id(row[2]), row[3], name.retention, row[1], expand(row[4])) for row in rows]
    except Unmade:
        return [], after, False
    except (sqlite3.DatabaseError, ZstdError, ConfigurationError) as error:
        if name.path.exists():
            _log.error("%s: cannot be followed: %s", name.path, error)
        return [], after, False
    hits = [hit for hit in found if test is None or test(document_of(hit.body))]
    return (hits, rows[-1][0], True) if len(rows) == PAGE else (hits, last, False)


def _last(name: SegmentName) -> int:
    try:
        with closing(open_to_read(name.path)) as connection:
            return int(connection.execute("SELECT max(number) FROM document").fetchone()[0] or 0)
    except (sqlite3.DatabaseError, ConfigurationError):
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
