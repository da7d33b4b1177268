"""The question where people's successes came from, and its answer. Pure.

One search with nested counts, whatever the number of people: times and numbers come from doc values, no document is fetched.
A position is the middle of what lies in a cell of some 39 by 20 km (a geohash of four characters); its city is the most
frequent one there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Final

from msgspec import Struct, field
from msgspec.json import Decoder

from indexer.store.contract import Person, Position, Sightings

COUNTRIES_MAX: Final = 64
NETWORKS_MAX: Final = 64
CELLS_MAX: Final = 64
_FIRST: Final = {"first": {"min": {"field": "@timestamp"}}}


class _Number(Struct):
    value: float | None = None


class _Value(Struct):
    key: str | int
    doc_count: int
    first: _Number


class _Values(Struct):
    buckets: list[_Value]


class _Point(Struct):
    lat: float
    lon: float


class _Middle(Struct):
    location: _Point


class _City(Struct):
    key: str


class _Cities(Struct):
    buckets: list[_City]


class _Cell(Struct):
    first: _Number
    last: _Number
    middle: _Middle
    cities: _Cities


class _Cells(Struct):
    buckets: list[_Cell]


class _Placed(Struct):
    cells: _Cells


class _Actor(Struct):
    key: str
    countries: _Values
    networks: _Values
    placed: _Placed


class _Actors(Struct):
    buckets: list[_Actor]


class _Organization(Struct):
    key: str
    actors: _Actors


class _Organizations(Struct):
    buckets: list[_Organization] = []


class _Aggregations(Struct):
    organizations: _Organizations = field(default_factory=_Organizations)


class SightingsAnswer(Struct):
    """The cluster's answer to :func:`sightings_question`."""

    timed_out: bool
    aggregations: _Aggregations = field(default_factory=_Aggregations)


answer_decoder: Final = Decoder(SightingsAnswer)


def sightings_question(
    people: Sequence[Person], since_ms: int, until_ms: int, relays: Collection[int], timeout_s: float
) -> dict[str, Any]:
    """A search for the successes of those people."""
    users: defaultdict[str, list[str]] = defaultdict(list)
    for organization, user in people:
        users[organization].append(user)
    any_of = [
        {"bool": {"filter": [{"term": {"organization.id": organization}}, {"terms": {"user.id": names}}]}}
        for organization, names in users.items()
    ]
    span = {"range": {"@timestamp": {"gte": since_ms, "lt": until_ms, "format": "epoch_millis"}}}
    who = {"bool": {"should": any_of, "minimum_should_match": 1}}
    return {
        "query": {"bool": {"filter": [span, {"term": {"event.outcome": "success"}}, {"exists": {"field": "source.ip"}}, who]}},
        "size": 0,
        "track_total_hits": False,
        "timeout": f"{max(1, int(timeout_s * 1000))}ms",
        "aggs": {
            "organizations": {
                "terms": {"field": "organization.id", "size": len(users)},
                "aggs": {"actors": {"terms": {"field": "user.id", "size": len(people)}, "aggs": _of_an_actor(relays)}},
            }
        },
    }


def _of_an_actor(relays: Collection[int]) -> dict[str, Any]:
    placed = {
        "filter": [{"exists": {"field": "source.geo.location"}}, {"exists": {"field": "source.geo.city_name"}}],
        "must_not": [{"terms": {"source.as.number": sorted(relays)}}],
    }
    cells = {
        "geohash_grid": {"field": "source.geo.location", "precision": 4, "size": CELLS_MAX},
        "aggs": {
            **_FIRST,
            "last": {"max": {"field": "@timestamp"}},
            "middle": {"geo_centroid": {"field": "source.geo.location"}},
            "cities": {"terms": {"field": "source.geo.city_name", "size": 1}},
        },
    }
    return {
        "countries": {"terms": {"field": "source.geo.country_iso_code", "size": COUNTRIES_MAX}, "aggs": _FIRST},
        "networks": {"terms": {"field": "source.as.number", "size": NETWORKS_MAX}, "aggs": _FIRST},
        "placed": {"filter": {"bool": placed}, "aggs": {"cells": cells}},
    }


def sightings_of(answer: SightingsAnswer, people: Sequence[Person]) -> dict[Person, Sightings]:
    """Who was seen where."""
    found = {
        (organization.key, actor.key): actor
        for organization in answer.aggregations.organizations.buckets
        for actor in organization.actors.buckets
    }
    return {
        person: _sightings(actor) for person in people if (actor := found.get((normalized(person[0]), normalized(person[1]))))
    }


def normalized(text: str) -> str:
    """A keyword as the mapping's normalizer has it: each character in lower case by itself, as Java does."""
    return text.lower() if text.isascii() else "".join(each.lower()[0] for each in text)


def _sightings(actor: _Actor) -> Sightings:
    positions = [position for cell in actor.placed.cells.buckets for position in _positions(cell)]
    return Sightings(
        {str(each.key).upper(): (int(each.first.value or 0), each.doc_count) for each in actor.countries.buckets},
        {int(each.key): (int(each.first.value or 0), each.doc_count) for each in actor.networks.buckets},
        sorted(positions, key=lambda position: position.time_ms),
    )


def _positions(cell: _Cell) -> list[Position]:
    city = cell.cities.buckets[0].key if cell.cities.buckets else ""
    at, moments = cell.middle.location, {int(each.value or 0) for each in (cell.first, cell.last)}
    return [Position(moment, at.lat, at.lon, city.title()) for moment in moments]
