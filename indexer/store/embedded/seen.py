"""From which addresses actors succeeded: kept beside the documents, so that a month of somebody's past is a few rows.

The writer adds up each commit's documents (:func:`seen_rows`); the reader (:class:`Seen`) takes an address's place from the
newest document that has it. A segment without the table, and an actor whose rows reach over a border of the time asked for, are
answered from the documents. A damaged segment is logged, and the others are still asked.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import MsgspecError, Struct, field
from msgspec.json import Decoder
from zstandard import ZstdError

from auditship.block import RESERVED_GATEWAYS
from auditship.errors import ConfigurationError
from indexer.store.contract import Person, Position, Sightings, Unavailable
from indexer.store.embedded.row import Row, folded
from indexer.store.embedded.segment import SegmentName, codec_of, is_interrupted, open_to_read, pass_over, segments

INSERT_SEEN: Final = """
    INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (user, organization, ip) DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last),
        count = count + excluded.count, number = max(number, excluded.number)
"""
_SEEN: Final = """
    WITH asked (user, organization) AS (VALUES {people})
    SELECT seen.* FROM asked CROSS JOIN seen USING (user, organization)
"""
_SCAN: Final = """
    WITH asked (user, organization) AS (VALUES {people})
    SELECT user, organization, ip, min(time), max(time), count(*), max(number)
    FROM asked CROSS JOIN document INDEXED BY document_user USING (user, organization)
    WHERE time >= ? AND time < ? AND outcome = 'success' AND ip IS NOT NULL AND dataset NOT IN ({reserved})
    GROUP BY user, organization, ip
"""
_HAS_SEEN: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'seen'"
_STEPS: Final = 10_000
"""SQLite's instructions between two looks at the clock."""

_Key = tuple[str, str]
"""A user's and an organisation's id, folded."""
SeenRow = tuple[str, str, bytes, int, int, int, int]
"""As the columns of ``seen`` stand."""


class _Point(Struct, frozen=True):
    lat: float
    lon: float


class _Geo(Struct, frozen=True):
    country_iso_code: str | None = None
    city_name: str | None = None
    location: _Point | None = None


class _Network(Struct, frozen=True):
    number: int | None = None


class _Source(Struct, frozen=True):
    geo: _Geo = _Geo()
    network: _Network = field(name="as", default=_Network())


class _Document(Struct, frozen=True):
    source: _Source = _Source()


_decode = Decoder(_Document).decode


class _Sighting(NamedTuple):
    """What a segment says of one actor at one address."""

    address: bytes
    first_ms: int
    last_ms: int
    times: int


def keeps_sightings(connection: sqlite3.Connection) -> bool:
    """Whether the segment was made with the table."""
    return connection.execute(_HAS_SEEN).fetchone() is not None


def seen_rows(rows: Iterable[Row]) -> list[SeenRow]:
    """The sightings in rows of documents, added up."""
    found: dict[tuple[str, str, bytes], tuple[int, int, int, int]] = {}
    for number, _, moment, dataset, _, outcome, organization, user, _, ip, _ in rows:
        if outcome != "success" or dataset in RESERVED_GATEWAYS:
            continue
        if ip is not None and user is not None and organization is not None:
            key = user, organization, ip
            known = found.get(key)
            if known is None:
                found[key] = moment, moment, 1, number
            else:
                first, last, count, newest = known
                found[key] = min(first, moment), max(last, moment), count + 1, max(newest, number)
    return [key + value for key, value in found.items()]


class Seen:
    """One question about sightings, over all segments.

    Args:
        directory: the store's.
        since_ms: inclusive.
        until_ms: exclusive.
        relays: networks that are left out of the positions.
        deadline: on the monotonic clock.
    """

    def __init__(self, directory: Path, since_ms: int, until_ms: int, relays: Collection[int], deadline: float) -> None:
        self._directory = directory
        self._since_ms, self._until_ms = since_ms, until_ms
        self._relays = relays
        self._deadline = deadline
        self._places: dict[bytes, _Source] = {}

    def of(self, people: Sequence[Person]) -> dict[Person, Sightings]:
        """Who was seen where.

        Raises:
            Unavailable: it takes too long, or a segment cannot be read now.
        """
        keys = {person: key for person in people if (key := _key(person))}
        asked = sorted(set(keys.values()))
        found: dict[_Key, list[_Sighting]] = {}
        for name in reversed(segments(self._directory)):
            for user, organization, address, first, last, count, _ in self._segment(name, asked):
                found.setdefault((user, organization), []).append(_Sighting(address, first, last, count))
        return {person: self._sightings(found[key]) for person, key in keys.items() if key in found}

    def _segment(self, name: SegmentName, asked: Sequence[_Key]) -> list[SeenRow]:
        """A segment's rows; an address's place is taken from the newest segment that has it."""
        try:
            with closing(open_to_read(name.path)) as connection:
                connection.set_progress_handler(lambda: time.monotonic() > self._deadline, _STEPS)
                rows = list(self._rows(connection, asked))
                self._learn_places(connection, rows)
                return rows
        except (sqlite3.Error, ZstdError, MsgspecError, ConfigurationError) as error:
            if isinstance(error, sqlite3.Error) and is_interrupted(error):
                raise Unavailable(f"the store in {self._directory}: looking up where people were takes too long") from None
            pass_over(name.path, error)
            return []

    def _rows(self, connection: sqlite3.Connection, asked: Sequence[_Key]) -> Iterator[SeenRow]:
        if keeps_sightings(connection):
            rows: list[SeenRow] = connection.execute(*_of(_SEEN, asked)).fetchall()
            across = {row[:2] for row in rows if any(row[3] < border <= row[4] for border in self._borders)}
            yield from (row for row in rows if row[:2] not in across and self._since_ms <= row[3] < self._until_ms)
            asked = sorted(across)
        if asked:
            yield from connection.execute(*_of(_SCAN, asked, *self._borders))

    @property
    def _borders(self) -> tuple[int, int]:
        return self._since_ms, self._until_ms

    def _learn_places(self, connection: sqlite3.Connection, rows: Sequence[SeenRow]) -> None:
        """The places of addresses that no newer segment had."""
        newest: dict[bytes, int] = {}
        for _, _, address, _, _, _, number in rows:
            if address not in self._places:
                newest[address] = max(number, newest.get(address, 0))
        if not newest:
            return
        expand = codec_of(connection).expand
        for address, number in newest.items():
            (body,) = connection.execute("SELECT body FROM document WHERE number = ?", (number,)).fetchone()
            self._places[address] = _decode(expand(body)).source

    def _sightings(self, found: Sequence[_Sighting]) -> Sightings:
        countries: dict[str, tuple[int, int]] = {}
        networks: dict[int, tuple[int, int]] = {}
        positions: set[Position] = set()
        for address, first, last, count in found:
            geo, number = self._places[address].geo, self._places[address].network.number
            if geo.country_iso_code is not None:
                _add(countries, geo.country_iso_code.upper(), first, count)
            if number is not None:
                _add(networks, number, first, count)
            if geo.city_name and geo.location and number not in self._relays:
                at = geo.location
                positions |= {Position(moment, at.lat, at.lon, geo.city_name) for moment in (first, last)}
        return Sightings(countries, networks, sorted(positions, key=lambda position: position.time_ms))


def _add(known: dict, value: str | int, first: int, count: int) -> None:  # type: ignore[type-arg]
    before, so_far = known.get(value, (first, 0))
    known[value] = min(before, first), so_far + count


def _key(person: Person) -> _Key | None:
    """A person as they stand in the columns; none where an id is too long to be found."""
    organization, user = folded(person[0]), folded(person[1])
    return None if organization is None or user is None else (user, organization)


def _of(sql: str, asked: Sequence[_Key], *more: int) -> tuple[str, tuple[object, ...]]:
    """A statement about those people, and its parameters."""
    people = ",".join(["(?,?)"] * len(asked))
    reserved = ",".join(f"'{each}'" for each in sorted(RESERVED_GATEWAYS))
    return sql.format(people=people, reserved=reserved), (*(each for key in asked for each in key), *more)
