"""The demo's city database: places for the addresses that are reserved for documentation, which no real database knows.

Invented, so it needs nobody's licence; some kilobytes, so the package ships it (``demo.mmdb``). Made anew by
``python -m indexer.enrich.demo_database`` (needs mmdb-writer, of the ``dev`` extra).
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, Final

# network, city, state and its code, country and its code, continent, latitude, longitude, time zone
PLACES: Final = (
    ("203.0.113.0/26", "Berlin", "Berlin", "BE", "Germany", "DE", "EU", 52.52, 13.405, "Europe/Berlin"),
    ("203.0.113.64/26", "Paris", "Île-de-France", "IDF", "France", "FR", "EU", 48.857, 2.352, "Europe/Paris"),
    ("203.0.113.128/26", "Zürich", "Zurich", "ZH", "Switzerland", "CH", "EU", 47.377, 8.541, "Europe/Zurich"),
    ("203.0.113.192/26", "Lisbon", "Lisbon", "11", "Portugal", "PT", "EU", 38.722, -9.139, "Europe/Lisbon"),
    (
        "198.51.100.0/26",
        "San Francisco",
        "California",
        "CA",
        "United States",
        "US",
        "NA",
        37.775,
        -122.419,
        "America/Los_Angeles",
    ),
    ("198.51.100.64/26", "New York", "New York", "NY", "United States", "US", "NA", 40.713, -74.006, "America/New_York"),
    ("198.51.100.128/26", "Toronto", "Ontario", "ON", "Canada", "CA", "NA", 43.651, -79.347, "America/Toronto"),
    ("198.51.100.192/26", "São Paulo", "São Paulo", "SP", "Brazil", "BR", "SA", -23.551, -46.633, "America/Sao_Paulo"),
    ("192.0.2.0/25", "Tokyo", "Tokyo", "13", "Japan", "JP", "AS", 35.676, 139.65, "Asia/Tokyo"),
    ("192.0.2.128/25", "Sydney", "New South Wales", "NSW", "Australia", "AU", "OC", -33.869, 151.209, "Australia/Sydney"),
    ("2001:db8::/33", "Oslo", "Oslo", "03", "Norway", "NO", "EU", 59.914, 10.752, "Europe/Oslo"),
)


def path() -> Path:
    """Where the file is."""
    return Path(str(files(__package__).joinpath("demo.mmdb")))


def write(target: Path) -> None:
    """Makes the database."""
    from mmdb_writer import MMDBWriter  # noqa: PLC0415 - of the dev extra
    from netaddr import IPSet  # noqa: PLC0415 - likewise

    writer = MMDBWriter(
        6, "auditship-demo-city", languages=["en"], description="places for documentation", ipv4_compatible=True
    )
    for network, *place in PLACES:
        writer.insert_network(IPSet([network]), _record(*place))
    writer.to_db_file(str(target))


def _record(*place: Any) -> dict[str, Any]:
    city, state, state_code, country, country_code, continent, latitude, longitude, timezone = place
    return {
        "city": {"names": {"en": city}},
        "continent": {"code": continent},
        "country": {"iso_code": country_code, "names": {"en": country}},
        "location": {"latitude": latitude, "longitude": longitude, "time_zone": timezone},
        "subdivisions": [{"iso_code": state_code, "names": {"en": state}}],
    }


if __name__ == "__main__":
    write(path())
