"""Promises of the location: where an address is, what is none, and databases that are replaced while they are in use."""

from __future__ import annotations

import ipaddress
import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from auditship.errors import ConfigurationError
from indexer.enrich import database as database_module
from indexer.enrich import demo_database
from indexer.enrich.database import Database
from indexer.enrich.location import InvalidAddress, Places, location_text


@pytest.fixture
def places() -> Places:
    return Places(demo_database.path(), None, 100)


WORLD: dict[str, Any] = {"city": {"names": {"en": "Anywhere"}}, "country": {"iso_code": "DE", "names": {"en": "Germany"}}}


@pytest.mark.parametrize(
    ("ip", "text"),
    [
        ("203.0.113.7", "Berlin, Berlin, 203.0.113.7"),
        (" 203.0.113.7 ", "Berlin, Berlin, 203.0.113.7"),
        ("::ffff:203.0.113.7", "Berlin, Berlin, 203.0.113.7"),
        ("::FFFF:CB00:7107", "Berlin, Berlin, 203.0.113.7"),
        ("64:ff9b::203.0.113.7", "Berlin, Berlin, 203.0.113.7"),
        ("2001:DB8:0:0::7", "Oslo, Oslo, 2001:db8::7"),
        ("2001:db8::7%eth0", "Oslo, Oslo, 2001:db8::7"),
        ("8.8.8.8", None),
        ("2606:4700::1111", None),
    ],
)
def test_an_address_is_shown_with_city_and_state(places: Places, ip: str, text: str | None) -> None:
    place = places.look_up(ip)
    assert place.text == text
    source = json.loads(bytes(place.source))
    assert source["ip"] == place.ip
    assert ("geo" in source) == (text is not None)
    assert places.look_up(ip) is place


@pytest.mark.parametrize(
    "ip",
    [
        "0.0.0.0", "10.4.0.1", "100.64.0.1", "100.127.255.254", "127.0.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255",
        "192.168.1.1", "192.0.0.8", "198.18.0.1", "198.19.255.255", "224.0.0.251", "239.1.1.1", "255.255.255.255", "::", "::1",
        "::10.0.0.1", "fc00::1", "fd12:3456::1", "fe80::1%eth0", "fec0::1", "ff02::1", "::ffff:10.4.0.1", "::ffff:127.0.0.1",
        "64:ff9b::10.4.0.1", "100::1",
    ],
)  # fmt: skip
def test_what_is_nowhere_is_nowhere_whatever_a_database_says(tmp_path: Path, ip: str) -> None:
    writer = MMDBWriter(6, "test", ipv4_compatible=True)
    for half in ("::/1", "8000::/1"):
        writer.insert_network(IPSet([half]), WORLD)
    writer.to_db_file(str(tmp_path / "world.mmdb"))
    places = Places(tmp_path / "world.mmdb", None, 10)
    assert places.look_up(ip).text is None
    assert set(json.loads(bytes(places.look_up(ip).source))) == {"ip"}
    for outside in ("172.32.0.1", "100.63.255.255", "198.20.0.1", "11.0.0.1", "2001:db8::1"):
        assert places.look_up(outside).text == f"Anywhere, {outside}"


def test_addresses_for_documentation_are_unknown_to_a_database_that_does_not_invent_them(tmp_path: Path) -> None:
    places = Places(database(tmp_path / "c.mmdb", WORLD, "8.8.8.0/24"), None, 10)
    for ip in ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"):
        assert location_text(places.look_up(ip), None, automated=False) == "Unknown"


@pytest.mark.parametrize(
    ("ip", "what"),
    [
        ("", "nothing"),
        ("   ", "nothing"),
        ("nowhere", "no IP address"),
        ("203.0.113.7, 10.0.0.1", "a list, of which only the gateway knows who the client is: '203.0.113.7, 10.0.0.1'"),
        ("203.0.113.7," * 1000, "a list"),
        ("203.0.113.7:443", "an address with a port"),
        ("[2001:db8::1]:443", "an address with a port"),
        ("203.0.113.0/24", "a network"),
        ("203.0.113.256", "no IP address"),
        ("010.0.0.1", "no IP address"),
        ("1" * 1000, "no IP address"),
        ("::1::", "no IP address"),
        ("unknown", "no IP address"),
    ],
)
def test_what_is_not_one_address_is_told(places: Places, ip: str, what: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        places.look_up(ip)
    assert str(caught.value).startswith(f"one IP address is expected, got {what}")
    assert len(str(caught.value)) < 200


@settings(deadline=None)
@given(st.text(max_size=100) | st.ip_addresses().map(str))
def test_any_text_is_an_address_or_told_to_be_none(text: str) -> None:
    places = Places(demo_database.path(), None, 10)
    try:
        assert places.look_up(text).ip
    except InvalidAddress as error:
        assert str(error)


def test_people_are_shown_by_place_and_automation_by_platform(places: Places) -> None:
    place, nowhere = places.look_up("203.0.113.7"), places.look_up("10.0.0.1")
    assert location_text(place, None, automated=False) == "Berlin, Berlin, 203.0.113.7"
    assert location_text(place, "GitHub Actions", automated=True) == "GitHub Actions, 203.0.113.7"
    assert location_text(None, "GitHub Actions", automated=True) == "GitHub Actions"
    assert location_text(place, "GitHub Actions", automated=False) == "Berlin, Berlin, 203.0.113.7"
    assert location_text(place, None, automated=True) == "Berlin, Berlin, 203.0.113.7"
    assert location_text(nowhere, None, automated=False) == location_text(None, None, automated=True) == "Unknown"


def database(path: Path, record: dict[str, Any], network: str = "203.0.113.0/24") -> Path:
    writer = MMDBWriter(6, "test", ipv4_compatible=True)
    writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))
    return path


def test_the_flat_records_of_other_makers_are_read_too(tmp_path: Path) -> None:
    flat = {"city": "Lyon", "state1": "Auvergne-Rhône-Alpes", "country_code": "FR", "latitude": 45.76, "longitude": 4.83}
    asn = {"autonomous_system_number": 64496, "autonomous_system_organization": "Example Net"}
    places = Places(database(tmp_path / "c.mmdb", flat), database(tmp_path / "a.mmdb", asn), 10)
    place = places.look_up("203.0.113.7")
    assert place.text == "Lyon, Auvergne-Rhône-Alpes, 203.0.113.7"
    source = json.loads(bytes(place.source))
    assert source["geo"]["location"] == {"lat": 45.76, "lon": 4.83}
    assert source["as"] == {"number": 64496, "organization": {"name": "Example Net"}}


def test_where_only_the_country_is_known_it_is_shown(tmp_path: Path) -> None:
    record = {"country": {"iso_code": "DE", "names": {"en": "Germany"}}}
    assert Places(database(tmp_path / "c.mmdb", record), None, 10).look_up("203.0.113.7").text == "Germany, 203.0.113.7"


@pytest.mark.parametrize(
    ("record", "network"),
    [
        ({"autonomous_system_number": 64496, "autonomous_system_organization": "Example Net"},
         {"number": 64496, "organization": {"name": "Example Net"}}),
        ({"autonomous_system_number": 64496}, {"number": 64496}),
        ({"autonomous_system_number": "64496"}, None),
        (WORLD, None),
    ],
)  # fmt: skip
def test_the_network_is_told_by_number_and_name(tmp_path: Path, record: dict[str, Any], network: dict[str, Any] | None) -> None:
    places = Places(None, database(tmp_path / "asn.mmdb", record), 10)
    assert json.loads(bytes(places.look_up("203.0.113.7").source)).get("as") == network
    assert "as" not in json.loads(bytes(places.look_up("198.51.100.7").source))


def city(name: str) -> dict[str, Any]:
    return {"city": {"names": {"en": name}}}


def shown(places: Places) -> str | None:
    return places.look_up("203.0.113.7").text


def test_a_missing_database_leaves_places_unknown_until_it_comes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "city.mmdb"
    places = Places(path, None, 10)
    assert str(path) in caplog.text
    assert shown(places) is None
    shutil.copy(demo_database.path(), path)
    assert places.reload() == ["city_database"]
    assert shown(places) == "Berlin, Berlin, 203.0.113.7"
    assert places.reload() == []


def test_a_database_that_was_renamed_over_is_taken_over(tmp_path: Path) -> None:
    path = database(tmp_path / "city.mmdb", city("Old"))
    places = Places(path, database(tmp_path / "asn.mmdb", {"autonomous_system_number": 1}), 10)
    assert shown(places) == "Old, 203.0.113.7"
    database(tmp_path / "new.mmdb", city("New")).replace(path)
    database(tmp_path / "new.mmdb", {"autonomous_system_number": 2}).replace(tmp_path / "asn.mmdb")
    assert shown(places) == "Old, 203.0.113.7"
    assert places.reload() == ["city_database", "asn_database"]
    assert shown(places) == "New, 203.0.113.7"
    assert json.loads(bytes(places.look_up("203.0.113.7").source))["as"] == {"number": 2}


def test_what_was_looked_up_while_a_database_was_taken_over_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = database(tmp_path / "city.mmdb", city("Old"))
    places = Places(path, None, 10)
    assert places._city is not None
    find = places._city.find

    def slowly(address: Any) -> Any:
        found = find(address)
        monkeypatch.undo()
        database(tmp_path / "new.mmdb", city("New")).replace(path)
        assert places.reload() == ["city_database"]
        return found

    monkeypatch.setattr(places._city, "find", slowly)
    assert shown(places) == "Old, 203.0.113.7"
    assert shown(places) == "New, 203.0.113.7"


def test_a_database_that_is_written_over_in_place_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = database(tmp_path / "city.mmdb", city("Old"))
    whole = database(tmp_path / "new.mmdb", city("New")).read_bytes()
    places = Places(path, None, 10)
    with path.open("r+b") as file:
        file.truncate(0)  # with the file itself mapped into memory, the next look into it would end the process
        assert places.look_up("203.0.113.8").text == "Old, 203.0.113.8"
        file.write(whole[: len(whole) // 2])
        file.flush()
        assert places.reload() == []
        assert places.reload() == []
        assert caplog.text.count("the one before stays") == 1, "told once for each such file"
        file.write(whole[len(whole) // 2 :])
    assert shown(places) == "Old, 203.0.113.7"
    assert places.reload() == ["city_database"]
    assert shown(places) == "New, 203.0.113.7"


@pytest.mark.parametrize("damage", ["torn", "empty", "text", "gone", "tree"])
def test_a_damaged_replacement_leaves_the_one_before(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path = database(tmp_path / "city.mmdb", city("Old"))
    places = Places(path, None, 10)
    whole = demo_database.path().read_bytes()
    tree_is_wrong = b"\xff" * 600 + whole[600:]
    replacements = {"torn": whole[:-200], "empty": b"", "text": b"not found", "tree": tree_is_wrong}
    path.unlink()
    if damage != "gone":
        path.write_bytes(replacements[damage])
    assert places.reload() == []
    assert shown(places) == "Old, 203.0.113.7"
    assert ("the one before stays" in caplog.text) == (damage != "gone")


@pytest.mark.parametrize("seed", range(40))
def test_a_replacement_with_damage_anywhere_ends_nothing(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "city.mmdb"
    shutil.copy(demo_database.path(), path)
    places = Places(path, None, 10)
    chance, whole = random.Random(seed), bytearray(path.read_bytes())
    length = chance.randint(1, 64)
    at = chance.randrange(len(whole) - length)
    whole[at : at + length] = chance.randbytes(length)
    path.unlink()
    path.write_bytes(whole)
    places.reload()
    for network, *_ in demo_database.PLACES:
        assert places.look_up(network.partition("/")[0]).ip


def test_a_replacement_that_would_end_the_process_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "city.mmdb"
    shutil.copy(demo_database.path(), path)
    places = Places(path, None, 10)
    chance, whole = random.Random(164), bytearray(path.read_bytes())  # a seed that makes the reader in C fail badly
    length = chance.randint(1, 64)
    at = chance.randrange(len(whole) - length)
    whole[at : at + length] = chance.randbytes(length)
    path.unlink()
    path.write_bytes(whole)
    assert places.reload() == []
    assert "the one before stays: " in caplog.text
    assert shown(places) == "Berlin, Berlin, 203.0.113.7"


DAMAGES = """
import ipaddress, logging, random, sys
from pathlib import Path
from auditship.errors import ConfigurationError
from indexer.enrich.demo_database import PLACES
from indexer.enrich.location import Places

whole, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
logging.disable()
tree = len(whole) // 2

def damaged(chance):
    data = bytearray(whole)
    at, length = chance.randrange(len(data)), chance.choice((1, 2, 4, 64, 512))
    kind = chance.choice(("bytes", "bits", "zeros", "ones", "cut", "gone", "moved", "pointers", "tree", "metadata"))
    if kind == "bytes":
        data[at : at + length] = chance.randbytes(length)
    elif kind == "bits":
        for _ in range(length):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind in ("zeros", "ones"):
        data[at : at + length] = (b"\\0" if kind == "zeros" else b"\\xff") * length
    elif kind == "cut":
        del data[at:]
    elif kind == "gone":
        del data[at : at + length]
    elif kind == "moved":
        data[at:at] = data[: length]
    elif kind == "pointers":
        for _ in range(length):
            data[chance.randrange(tree, len(data))] = chance.randrange(0x20, 0x40)
    elif kind == "tree":
        for _ in range(length):
            data[chance.randrange(tree)] = chance.randrange(256)
    else:
        begins = data.rindex(b"MaxMind.com")
        data[chance.randrange(begins, len(data))] = chance.randrange(256)
    return bytes(data)

refused = 0
for seed in range(int(sys.argv[3]), int(sys.argv[4])):
    path.unlink(missing_ok=True)
    path.write_bytes(damaged(random.Random(seed)))
    print(seed, end=" ", flush=True)
    try:
        places = Places(path, path, 100)
    except ConfigurationError as error:
        assert str(path) in str(error) and error.hint, seed
        refused += 1
        continue
    for network, *_ in PLACES:
        for address in list(ipaddress.ip_network(network))[:300:60] if "." in network else [network.partition("/")[0]]:
            places.look_up(str(address))
print(f"refused {refused}", flush=True)
"""


def test_no_damage_at_start_ends_the_process(tmp_path: Path) -> None:
    """Many kinds of it, by seed; the reader in C would have ended this one more than once."""
    command = [sys.executable, "-c", DAMAGES, str(demo_database.path()), str(tmp_path / "city.mmdb"), "0", "500"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    seed = done.stdout.split()[-1] if done.stdout else "none"
    assert done.returncode == 0, f"status {done.returncode} at seed {seed}: {done.stderr}"
    assert 50 < int(seed) < 450, "some are told at once, some are hidden"


def test_a_file_is_proven_after_the_start_before_the_reader_in_c_may_have_it(tmp_path: Path) -> None:
    path = tmp_path / "city.mmdb"
    shutil.copy(demo_database.path(), path)
    found = Database(path)
    assert type(found._reader).__module__ == "maxminddb.reader"
    before = found.find(ipaddress.ip_address("203.0.113.7"))
    assert not found.reload(), "it is the same file"
    assert type(found._reader).__module__ == "maxminddb.extension"
    assert found.find(ipaddress.ip_address("203.0.113.7")) == before != {}


def test_hidden_damage_from_the_start_is_told_and_no_longer_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "city.mmdb"
    chance, whole = random.Random(164), bytearray(demo_database.path().read_bytes())  # the reader in C does not survive it
    length = chance.randint(1, 64)
    at = chance.randrange(len(whole) - length)
    whole[at : at + length] = chance.randbytes(length)
    path.write_bytes(whole)
    places = Places(path, None, 10)
    assert places.look_up("203.0.113.7").ip
    assert places.reload() == ["city_database"]
    assert shown(places) is None
    assert f"{path}: damaged: " in caplog.text
    assert "Locations stay unknown: fetch it again" in caplog.text
    assert places.reload() == [], "told once"
    path.unlink()
    shutil.copy(demo_database.path(), path)
    assert places.reload() == ["city_database"]
    assert shown(places) == "Berlin, Berlin, 203.0.113.7"


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL, None])
def test_a_proof_that_somebody_ended_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ended_by: int | None
) -> None:
    shutil.copy(demo_database.path(), tmp_path / "city.mmdb")
    places = Places(tmp_path / "city.mmdb", None, 10)
    with monkeypatch.context() as patch:
        if ended_by is None:
            patch.setattr(database_module, "PROOF_TIMEOUT_S", 0.001)
        else:
            suicide = f"import os; os.kill(os.getpid(), {int(ended_by)})"
            (tmp_path / "python").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{suicide}'\n")
            (tmp_path / "python").chmod(0o755)
            patch.setattr(sys, "executable", str(tmp_path / "python"))
        assert places.reload() == []
    assert "cannot be looked through now" in caplog.text
    assert shown(places) == "Berlin, Berlin, 203.0.113.7"


def test_a_corrupt_database_is_refused_at_start(tmp_path: Path) -> None:
    path = tmp_path / "city.mmdb"
    path.write_bytes(b"not a database")
    with pytest.raises(ConfigurationError, match=r"city\.mmdb: not a database in MaxMind's format"):
        Places(path, None, 10)
    with pytest.raises(ConfigurationError, match="Is a directory"):
        Places(tmp_path, None, 10)


def test_the_demo_s_database_is_what_its_source_says(tmp_path: Path) -> None:
    demo_database.write(tmp_path / "demo.mmdb")
    old, new = Places(demo_database.path(), None, 10), Places(tmp_path / "demo.mmdb", None, 10)
    for network, *_ in demo_database.PLACES:
        ip = network.partition("/")[0]
        assert bytes(old.look_up(ip).source) == bytes(new.look_up(ip).source)
