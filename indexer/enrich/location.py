"""Where an address is: the ECS ``source`` object, and one line for people.

Reads databases in MaxMind's format: GeoLite2 City and ASN and their like, and the flat records of DB-IP Lite. Both are
optional; a missing file is told in the log and everything is "Unknown", one that is no database is refused at start. A
database that is replaced while the indexer runs is taken over by :meth:`Places.reload`, which also finds hidden damage in the
one from the start (:mod:`indexer.enrich.database`).

Private, loopback, link-local, carrier-grade NAT, benchmark, multicast and unspecified addresses are nowhere, whatever a
database says; those for documentation are where a database says, and only the demo's does. An IPv4 address that is written as
an IPv6 one (mapped, or translated by a NAT64) is shown and looked up as IPv4.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Raw, Struct
from msgspec.json import encode

from indexer.enrich.cache import Cache
from indexer.enrich.database import Database
from indexer.enrich.habits import Origin

UNKNOWN: Final = "Unknown"
ADDRESS_MAX: Final = 60
_NOWHERE: Final = tuple(
    ipaddress.ip_network(each)
    for each in [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ]
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class InvalidAddress(ValueError):  # noqa: N818 - a finding about the line
    """What is not one IP address; the text says what it is instead."""


class Place(Struct, frozen=True, gc=False):
    """An address: normalised, its place for people, ``source.*``, and what habits are made of (each none if not known)."""

    ip: str
    text: str | None
    source: Raw
    origin: Origin | None = None


class Places:
    """Looks addresses up; at most ``entries_max`` of them are remembered.

    ``relays``: AS numbers of networks whose addresses do not tell where a person is.
    """

    def __init__(self, city: Path | None, asn: Path | None, entries_max: int, *, relays: frozenset[int] = frozenset()) -> None:
        self.relays = relays
        self._city = Database(city) if city else None
        self._asn = Database(asn) if asn else None
        self._entries_max = entries_max
        self._cache: Cache[str, Place] = Cache(entries_max)

    def look_up(self, ip: str) -> Place:
        """The place of an address.

        Raises:
            InvalidAddress: it is not one address.
        """
        cache = self._cache
        return cache.get(ip) or cache.find(ip) or cache.put(ip, self._make(ip))

    def reload(self) -> list[str]:
        """Takes replaced databases over, and drops a damaged one; returns which."""
        databases = (("city_database", self._city), ("asn_database", self._asn))
        taken = [name for name, database in databases if database and database.reload()]
        if taken:
            self._cache = Cache(self._entries_max)  # whoever looks up meanwhile, in another thread, fills the one before
        return taken

    def _make(self, text: str) -> Place:
        address = _address(text)
        ip = str(address)
        source: dict[str, Any] = {"ip": ip}
        if any(address.version == network.version and address in network for network in _NOWHERE):
            return Place(ip, None, Raw(encode(source)))
        geo = _geo(self._city.find(address)) if self._city else {}
        if geo:
            source["geo"] = geo
        network = (self._asn and _asn(self._asn.find(address))) or {}
        if network:
            source["as"] = network
        return Place(ip, _text(geo, ip), Raw(encode(source)), _origin(geo, network, self.relays))


def location_text(place: Place | None, platform: str | None, automated: bool) -> str:
    """One line for people: city, state and address; of automation the CI platform and the address; else "Unknown"."""
    if automated and platform:
        return f"{platform}, {place.ip}" if place else platform
    return place.text or UNKNOWN if place else UNKNOWN


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(text.strip() if len(text) <= ADDRESS_MAX else "")
    except ValueError:
        raise InvalidAddress(f"one IP address is expected, got {_what(text)}: {text[:ADDRESS_MAX]!r}") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.scope_id:
            return ipaddress.IPv6Address(address.packed)
    return address


def _what(text: str) -> str:
    """What a text is that is no address."""
    if "," in text:
        return "a list, of which only the gateway knows who the client is"
    if not text.strip():
        return "nothing"
    host, _, port = text.strip().rpartition(":")
    if port.isdecimal() and host and ("." in host or host.endswith("]")):
        return "an address with a port"
    return "a network" if "/" in text else "no IP address"


def _geo(record: Mapping[str, Any]) -> dict[str, Any]:
    """``source.geo.*`` of a record of either shape."""
    if not record:
        return {}
    country = record.get("country")
    found = _nested(record) if isinstance(country, dict) or isinstance(record.get("city"), dict) else _flat(record)
    return {name: value for name, value in found.items() if value and (name == "location" or isinstance(value, str))}


def _nested(record: Mapping[str, Any]) -> dict[str, Any]:
    """As GeoLite2 has it."""
    country = _part(record, "country")
    regions = record.get("subdivisions")
    region = regions[0] if isinstance(regions, list) and regions and isinstance(regions[0], dict) else {}
    location = _part(record, "location")
    country_code, region_code = country.get("iso_code"), region.get("iso_code")
    return {
        "city_name": _name(_part(record, "city")),
        "region_name": _name(region),
        "region_iso_code": f"{country_code}-{region_code}" if country_code and region_code else None,
        "country_name": _name(country),
        "country_iso_code": country_code,
        "continent_code": _part(record, "continent").get("code"),
        "location": _point(location.get("latitude"), location.get("longitude")),
        "timezone": location.get("time_zone"),
    }


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """As DB-IP Lite has it."""
    return {
        "city_name": record.get("city"),
        "region_name": record.get("state1"),
        "country_iso_code": record.get("country_code"),
        "location": _point(record.get("latitude"), record.get("longitude")),
        "timezone": record.get("timezone"),
    }


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _name(part: Mapping[str, Any]) -> str | None:
    names = part.get("names")
    return names.get("en") if isinstance(names, dict) else None


def _point(latitude: Any, longitude: Any) -> dict[str, float] | None:
    if isinstance(latitude, int | float) and isinstance(longitude, int | float):
        return {"lat": latitude, "lon": longitude}
    return None


def _asn(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """``source.as.*``."""
    number = record.get("autonomous_system_number")
    if not isinstance(number, int):
        return None
    name = record.get("autonomous_system_organization")
    return {"number": number, "organization": {"name": name}} if name and isinstance(name, str) else {"number": number}


def _origin(geo: Mapping[str, Any], network: Mapping[str, Any], relays: frozenset[int]) -> Origin | None:
    """What habits are made of; a country's centre is no place that anybody is at."""
    country, number, city, point = (
        geo.get("country_iso_code"),
        network.get("number"),
        geo.get("city_name"),
        geo.get("location"),
    )
    if not isinstance(country, str):
        country = None
    if country is None and number is None:
        return None
    return Origin(
        country.upper() if country else None,
        geo.get("country_name", ""),
        number,
        network.get("organization", {}).get("name", ""),
        (point["lat"], point["lon"]) if city and point and number not in relays else None,
        city or "",
    )


def _text(geo: Mapping[str, Any], ip: str) -> str | None:
    """City, state and address; the country where neither is known."""
    parts = [geo[name] for name in ("city_name", "region_name") if name in geo]
    if not parts:
        parts = [geo[name] for name in ("country_name", "country_iso_code") if name in geo][:1]
    return ", ".join([*parts, ip]) if parts else None
