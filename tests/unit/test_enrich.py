"""Promises of the enrichment: through which pipeline; and of its cache."""

from __future__ import annotations

import json
import tomllib
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditship.line import Ci
from indexer.enrich.actor import Actors
from indexer.enrich.cache import KEY_MAX, Cache
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
