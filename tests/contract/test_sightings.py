"""What every store tells of where people's successes came from."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.json import encode
from msgspec.structs import replace
from sample_entries import START_MS, decoded, entry, merged
from stores import Store

from indexer.document import Entry
from indexer.store.contract import Person, Sightings

HOUR_MS = 3_600_000
ADA, OTHER = ("org-1", "ada"), ("org-2", "ada")
BERLIN: dict[str, Any] = {"city_name": "Berlin", "country_iso_code": "DE", "location": {"lat": 52.52, "lon": 13.405}}
LISBON: dict[str, Any] = {"city_name": "Lisbon", "country_iso_code": "PT", "location": {"lat": 38.722, "lon": -9.139}}
BRAZIL: dict[str, Any] = {"country_iso_code": "BR", "location": {"lat": -10.0, "lon": -55.0}}


def seen(number: int, person: Person, ip: str, geo: dict[str, Any] | None, network: int | None, **more: Any) -> Entry:
    """A success at the hour of that number, from an address of that place."""
    changes = {"organization": {"id": person[0]}, "user": {"id": person[1]}, "event": {"outcome": "success"}, **more}
    bare = entry(number, time_ms=START_MS + number * HOUR_MS, source=None, **changes)
    source = {"ip": ip} | ({"geo": geo} if geo else {}) | ({"as": {"number": network}} if network else {})
    return replace(bare, body=encode(merged(decoded(bare.body), {"source": source})))


def at(hour: int) -> int:
    return START_MS + hour * HOUR_MS


def ask(store: Store, *people: Person, since: int = -1, until: int = 100, relays: frozenset[int] = frozenset()) -> Any:
    return store.reader.sightings(people, since_ms=at(since), until_ms=at(until), relays=relays, timeout_s=10)


def places(found: Sightings) -> list[tuple[int, str, int, int]]:
    """Hour, city and rounded coordinates."""
    return [
        ((each.time_ms - START_MS) // HOUR_MS, each.city.lower(), round(each.latitude), round(each.longitude))
        for each in found.positions
    ]


@pytest.fixture
def filled(store: Store) -> Store:
    store.append(
        [
            seen(0, ADA, "203.0.113.1", BERLIN, 3320),
            seen(1, ADA, "203.0.113.2", BERLIN, 6805),
            seen(2, ADA, "203.0.113.2", BERLIN, 6805),
            seen(3, ADA, "203.0.113.70", LISBON, 3243),
            seen(4, ADA, "203.0.113.1", BERLIN, 3320),
            seen(5, ADA, "203.0.113.200", BRAZIL, 27699, event={"outcome": "failure"}),
            seen(6, OTHER, "203.0.113.201", BRAZIL, 27699),
            seen(7, ("org-1", "bob"), "10.0.0.1", None, None),
            seen(8, ADA, "10.0.0.1", None, None),
            seen(10, ADA, "203.0.113.201", BRAZIL, 27699, dataset="alert"),
            seen(9, ("ORG-Ä", "ŞULE İ"), "203.0.113.1", BERLIN, None),
        ]
    )
    return store


def test_successes_are_told_by_country_network_and_place(filled: Store) -> None:
    found = ask(filled, ADA)
    assert found.keys() == {ADA}
    assert found[ADA].countries == {"DE": (at(0), 4), "PT": (at(3), 1)}
    assert found[ADA].networks == {3320: (at(0), 2), 6805: (at(1), 2), 3243: (at(3), 1)}
    told = places(found[ADA])
    assert (told[0], told[-1]) == ((0, "berlin", 53, 13), (4, "berlin", 53, 13))
    assert (3, "lisbon", 39, -9) in told


def test_each_person_by_themselves_and_without_regard_to_case(filled: Store) -> None:
    loud, nobody = ("ORG-1", "ADA"), ("org-1", "nobody")
    found = ask(filled, ADA, OTHER, loud, nobody, ("org-ä", "şule i"), ("org-1", "x" * 2000))
    assert found[loud] == found[ADA]
    assert nobody not in found
    assert found[OTHER].countries == {"BR": (at(6), 1)}
    assert found[OTHER].positions in ((), [])


def test_who_has_no_place_has_nothing_to_tell(filled: Store) -> None:
    found = ask(filled, ("org-1", "bob")).get(("org-1", "bob"), Sightings())
    assert (dict(found.countries), dict(found.networks), list(found.positions)) == ({}, {}, [])


def test_only_the_time_that_was_asked_for(filled: Store) -> None:
    found = ask(filled, ADA, since=1, until=4)[ADA]
    assert found.countries == {"DE": (at(1), 2), "PT": (at(3), 1)}
    assert found.networks == {6805: (at(1), 2), 3243: (at(3), 1)}
    assert places(found)[-1] == (3, "lisbon", 39, -9)
    assert ask(filled, ADA, since=50) == {}


def test_relays_tell_no_place(filled: Store) -> None:
    found = ask(filled, ADA, relays=frozenset({3320}))[ADA]
    assert found.networks[3320] == (at(0), 2)
    assert {city for _, city, _, _ in places(found)} == {"berlin", "lisbon"}
    assert places(found)[-1] == (3, "lisbon", 39, -9)


def test_an_empty_store_has_seen_nobody(store: Store) -> None:
    assert ask(store, ADA) == {}


def test_what_is_delivered_again_counts_once(filled: Store) -> None:
    filled.append([seen(0, ADA, "203.0.113.1", BERLIN, 3320)], redelivered=True)
    assert ask(filled, ADA)[ADA].countries["DE"] == (at(0), 4)
