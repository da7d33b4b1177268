"""Promises of the enrichment: where, and through which pipeline."""

from __future__ import annotations

import json
import shutil
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from auditship.errors import ConfigurationError
from auditship.line import Ci
from indexer.enrich import demo_database
from indexer.enrich.actor import Actors
from indexer.enrich.cache import KEY_MAX, Cache
from indexer.enrich.location import InvalidAddress, Places, location_text
from indexer.enrich.platform import Platforms

MAC_CHROME = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)


def test_a_token_is_automated_whatever_it_says_and_its_runner_names_the_platform() -> None:
    actors = Actors(100)
    label = actors.label("api_token", "GitHub-Actions-Runner/2.329.0")
    assert (label.text, label.platform) == ("Automated", "GitHub Actions")
    assert actors.label("service", None).text == actors.label("service", MAC_CHROME).text == "Automated"
    assert actors.label("user", MAC_CHROME).text == "Chrome on macOS", "people and tokens share no cache"


@pytest.mark.parametrize(
    ("given_name", "name"),
    [("github_actions", "GitHub Actions"), ("GitHub", "GitHub Actions"), ("gitlab-ci", "GitLab CI"), ("Jenkins", "Jenkins"),
     ("Our Own CI", "Our Own CI"), ("  ", None), ("", None), (None, None), ("x" * 500, "x" * 100)],
)  # fmt: skip
def test_a_platform_has_one_name(given_name: str | None, name: str | None) -> None:
    assert Platforms().name(given_name) == name


PLATFORM_TABLE = tomllib.loads(files("indexer.enrich").joinpath("platform.toml").read_text(encoding="utf-8"))["platform"]


@pytest.mark.parametrize("platform", PLATFORM_TABLE, ids=lambda each: each["name"])
def test_a_platform_is_known_by_every_spelling_of_its_own(platform: dict[str, Any]) -> None:
    platforms = Platforms()
    for spelling in (*platform["given"], platform["name"], platform["name"].upper().replace(" ", "-")):
        assert platforms.of(Ci(platform=spelling)) == platform["name"]
    for word in platform["user_agent"]:
        agent = f"{word.rstrip('/')}/1.2.3 (linux; amd64)".title()
        assert platforms.of_user_agent(agent) == platform["name"]
        assert Actors(10).label("api_token", f"Terraform/1.13.4 {agent}").platform == platform["name"]
        assert platforms.of_user_agent(f"x{agent}") is None, "the beginning of a word"
    for glob in platform.get("run_url", ()):
        url = (
            glob.replace("[0-9]", "7").replace("*", "acme")
            if "://" in glob
            else "https://ci.acme" + glob.replace("[0-9]", "7").replace("*", "x")
        )
        assert platforms.of(Ci(run_url=url)) == platform["name"]


def test_no_spelling_belongs_to_two_platforms() -> None:
    for kind in ("given", "user_agent", "run_url"):
        spellings = [each for platform in PLATFORM_TABLE for each in platform.get(kind, ())]
        assert len(spellings) == len(set(spellings))
        assert all(each == each.lower() for each in spellings)
    assert len({platform["name"] for platform in PLATFORM_TABLE}) == len(PLATFORM_TABLE)


@pytest.mark.parametrize(
    ("ci", "name"),
    [
        (Ci(platform="github_actions", run_url="https://gitlab.example/acme/-/jobs/1"), "GitHub Actions"),
        (Ci(platform=" ", run_url="https://gitlab.example/acme/-/jobs/1"), "GitLab CI"),
        (Ci(run_url="https://jenkins.example/job/shop/42/"), "Jenkins"),
        (Ci(run_url="https://ci.example/runs/42"), None),
        (Ci(repository="acme/shop"), None),
        (Ci(), None),
    ],
)
def test_what_the_event_says_of_its_pipeline_counts_first(ci: Ci, name: str | None) -> None:
    assert Platforms().of(ci) == name


def test_no_person_s_browser_is_a_pipeline() -> None:
    lines = files("fake_useragent").joinpath("data/browsers.jsonl").read_text(encoding="utf-8").splitlines()
    platforms = Platforms()
    assert not any(platforms.of_user_agent(json.loads(line)["useragent"]) for line in lines)


@pytest.fixture
def places() -> Places:
    return Places(demo_database.path(), None, 100)


@pytest.mark.parametrize(
    ("ip", "text"),
    [
        ("203.0.113.7", "Berlin, Berlin, 203.0.113.7"),
        ("::ffff:203.0.113.7", "Berlin, Berlin, 203.0.113.7"),
        ("2001:DB8:0:0::7", "Oslo, Oslo, 2001:db8::7"),
        ("10.4.0.1", None),
        ("192.168.1.1", None),
        ("127.0.0.1", None),
        ("100.64.0.1", None),
        ("fe80::1%eth0", None),
        ("8.8.8.8", None),
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
    "ip", ["", "nowhere", "203.0.113.7, 10.0.0.1", "203.0.113.7:443", "203.0.113.256", "1" * 1000, "::1::"]
)
def test_what_is_not_one_address_is_told(places: Places, ip: str) -> None:
    with pytest.raises(InvalidAddress):
        places.look_up(ip)


def test_people_are_shown_by_place_and_automation_by_platform(places: Places) -> None:
    place, nowhere = places.look_up("203.0.113.7"), places.look_up("10.0.0.1")
    assert location_text(place, None, automated=False) == "Berlin, Berlin, 203.0.113.7"
    assert location_text(place, "GitHub Actions", automated=True) == "GitHub Actions, 203.0.113.7"
    assert location_text(None, "GitHub Actions", automated=True) == "GitHub Actions"
    assert location_text(place, "GitHub Actions", automated=False) == "Berlin, Berlin, 203.0.113.7"
    assert location_text(place, None, automated=True) == "Berlin, Berlin, 203.0.113.7"
    assert location_text(nowhere, None, automated=False) == location_text(None, None, automated=True) == "Unknown"


def database(path: Path, record: dict[str, Any]) -> Path:
    writer = MMDBWriter(6, "test", ipv4_compatible=True)
    writer.insert_network(IPSet(["203.0.113.0/24"]), record)
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


def test_a_missing_database_leaves_places_unknown_until_it_comes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "city.mmdb"
    places = Places(path, None, 10)
    assert str(path) in caplog.text
    assert places.look_up("203.0.113.7").text is None
    shutil.copy(demo_database.path(), path)
    assert places.reload() == ["city_database"]
    assert places.look_up("203.0.113.7").text == "Berlin, Berlin, 203.0.113.7"
    path.unlink()
    path.write_bytes(b"torn")
    assert places.reload() == []
    assert places.look_up("203.0.113.8").text == "Berlin, Berlin, 203.0.113.8"


def test_a_corrupt_database_is_refused_at_start(tmp_path: Path) -> None:
    path = tmp_path / "city.mmdb"
    path.write_bytes(b"not a database")
    with pytest.raises(ConfigurationError, match=r"city\.mmdb"):
        Places(path, None, 10)


def test_the_demo_s_database_is_what_its_source_says(tmp_path: Path) -> None:
    demo_database.write(tmp_path / "demo.mmdb")
    old, new = Places(demo_database.path(), None, 10), Places(tmp_path / "demo.mmdb", None, 10)
    for network, *_ in demo_database.PLACES:
        ip = network.partition("/")[0]
        assert bytes(old.look_up(ip).source) == bytes(new.look_up(ip).source)


@given(st.lists(st.text(max_size=30), max_size=200))
def test_a_cache_gives_back_what_it_was_given_and_stays_small(keys: list[str]) -> None:
    cache: Cache[str, str] = Cache(20)
    for key in keys:
        assert cache.put(key, f"value of {key}") == f"value of {key}"
        assert cache.find(key) == f"value of {key}"
        assert len(cache) <= 22


def test_a_cache_is_bounded_in_what_its_keys_weigh() -> None:
    cache: Cache[str, int] = Cache(1000)
    for number in range(5000):
        cache.put(f"{number:02000}", number)
    assert len(cache) * 2000 <= 2 * 500 * 200 + 4000
    cache.put("x" * (KEY_MAX + 1), 1)
    assert cache.find("x" * (KEY_MAX + 1)) is None
