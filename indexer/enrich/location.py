"""Where an address is: the ECS ``source`` object, and one line for people.

Reads databases in MaxMind's format: GeoLite2 City and ASN and their like, and the flat records of DB-IP Lite. Both are
optional; a missing file is told in the log and everything is "Unknown", a corrupt one is refused at start. A database that is
replaced while the indexer runs is taken over by :meth:`Places.reload`; a broken replacement leaves the one before in place.

Private, loopback, link-local, carrier-grade NAT, multicast and unspecified addresses are nowhere, whatever a database says.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import maxminddb
from msgspec import Raw, Struct
from msgspec.json import encode

from auditship.errors import ConfigurationError
from indexer.enrich.cache import Cache
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
        "192.168.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
    ]
)
_log = logging.getLogger("auditship.indexer")


class InvalidAddress(ValueError):  # noqa: N818 - a finding about the line
    """What is not one IP address; the text says what it is instead."""


class Place(Struct, frozen=True, gc=False):
    """An address: normalised, its place for people, ``source.*``, and what habits are made of (each none if not known)."""

    ip: str
    text: str | None
    source: Raw
    origin: Origin | None = None


class _Database:
    """A file that may be replaced while it is in use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._reader: maxminddb.Reader | None = None
        try:
            self._open()
        except FileNotFoundError:
            _log.warning("%s: missing; locations stay unknown until it is there", path)
        except (maxminddb.InvalidDatabaseError, OSError, ValueError) as error:
            raise ConfigurationError(f"{path}: not a database in MaxMind's format: {error}", "Fetch it again.") from None

    def _open(self) -> bool:
        """Opens the file if it is another than before."""
        info = self._path.stat()
        stamp = info.st_dev, info.st_ino, info.st_mtime_ns
        if stamp == self._stamp:
            return False
        reader = maxminddb.open_database(self._path)
        reader.get("192.0.2.1")  # a torn file opens well and fails here
        self._reader, self._stamp = reader, stamp
        return True

    def reload(self) -> bool:
        """Whether a new file was taken over."""
        try:
            return self._open()
        except FileNotFoundError:
            return False
        except (maxminddb.InvalidDatabaseError, OSError, ValueError) as error:
            _log.warning("%s: the new file cannot be used, the one before stays: %s", self._path, error)
            return False

    def find(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Mapping[str, Any]:
        """The record of an address, or an empty one."""
        if self._reader is None or (address.version == 6 and self._reader.metadata().ip_version == 4):  # noqa: PLR2004
            return {}
        record = self._reader.get(address)
        return record if isinstance(record, dict) else {}


class Places:
    """Looks addresses up; at most ``entries_max`` of them are remembered.

    ``relays``: AS numbers of networks whose addresses do not tell where a person is.
    """

    def __init__(self, city: Path | None, asn: Path | None, entries_max: int, *, relays: frozenset[int] = frozenset()) -> None:
        self._relays = relays
        self._city = _Database(city) if city else None
        self._asn = _Database(asn) if asn else None
        self._cache: Cache[str, Place] = Cache(entries_max)

    def look_up(self, ip: str) -> Place:
        """The place of an address.

        Raises:
            InvalidAddress: it is not one address.
        """
        cache = self._cache
        return cache.get(ip) or cache.find(ip) or cache.put(ip, self._make(ip))

    def reload(self) -> list[str]:
        """Takes replaced databases over; returns which."""
        databases = (("city_database", self._city), ("asn_database", self._asn))
        taken = [name for name, database in databases if database and database.reload()]
        if taken:
            self._cache.clear()
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
        return Place(ip, _text(geo, ip), Raw(encode(source)), _origin(geo, network, self._relays))


def location_text(place: Place | None, platform: str | None, automated: bool) -> str:
    """One line for people: city, state and address; of automation the CI platform and the address; else "Unknown"."""
    if automated and platform:
        return f"{platform}, {place.ip}" if place else platform
    return place.text or UNKNOWN if place else UNKNOWN


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if len(text) > ADDRESS_MAX:
        raise InvalidAddress("not one IP address: too long")
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        what = "a list" if "," in text else "not an IP address"
        raise InvalidAddress(f"one IP address is expected, got {what}: {text!r}") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address.scope_id:
            return ipaddress.IPv6Address(address.packed)
    return address


def _geo(record: Mapping[str, Any]) -> dict[str, Any]:
    """``source.geo.*`` of a record of either shape."""
    if not record:
        return {}
    country = record.get("country")
    found = _nested(record) if isinstance(country, dict) or isinstance(record.get("city"), dict) else _flat(record)
    return {name: value for name, value in found.items() if value not in (None, "")}


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
    return {"number": number, "organization": {"name": name}} if name else {"number": number}


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
