# ruff: noqa: E501 - user agents are as long as they are
"""Promises of the actor's label: what people are shown to act through, and that nothing is made up."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.enrich.actor import Actors
from indexer.enrich.user_agent import parse

MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/"
MAC_CHROME = MAC + "537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
UNKNOWN_SHARE_MAX = 0.05


@pytest.mark.parametrize(
    ("user_agent", "label"),
    [
        (MAC_CHROME, "Chrome on macOS"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Safari/537.36 Edg/141.0.0.0", "Edge on Windows"),
        ("Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0", "Firefox on Ubuntu"),
        ("Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36", "Chrome on Android"),
        ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36", "Chrome on Chrome OS"),
        (IPHONE + "Version/26.0 Mobile/15E148 Safari/604.1", "Safari on iOS"),
        (IPHONE + "CriOS/142.0.7444.77 Mobile/15E148 Safari/604.1", "Chrome on iOS"),
        ("Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1", "Safari on iPadOS"),
        (MAC + "605.1.15 (KHTML, like Gecko) CriOS/142 Version/11.1.1 Safari/605.1.15", "Chrome on iPadOS"),
        (MAC + "605.1.15 (KHTML, like Gecko) FxiOS/144.0 Safari/605.1.15", "Firefox on iPadOS"),
        (MAC + "605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1", "Safari on iPadOS"),
        (MAC + "605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15", "Safari on macOS"),
        ("okhttp/4.12.0", "okhttp"),
        ("Acme/3.2 CFNetwork/1494.0.7 Darwin/23.4.0", "Acme on iOS"),
        ("Acme/5.1 (com.acme.app; build:12; iOS 17.5.0) Alamofire/5.9.1", "Acme on iOS"),
        ("acme/1.0 (iPhone; iOS 17.5; Scale/3.00)", "acme on iOS"),
        ("Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8 Build/UQ1A.240205.004)", "Dalvik on Android"),
        ("acme-cli/2.4.1 (darwin; arm64)", "acme-cli on macOS"),
        ("acme-cli/2.4.1 (windows; amd64)", "acme-cli on Windows"),
        ("auditship/0.9.0 (linux; x86_64)", "auditship on Linux"),
        ("gitlab-runner 18.5.0 linux/amd64", "gitlab-runner on Linux"),
        ("Terraform/1.13.4 (+https://www.terraform.io)", "Terraform"),
        ("HashiCorp Terraform/1.5.7 (+https://www.terraform.io) Terraform Plugin SDK/2.10.1", "Terraform"),
        ("OpenTofu/1.8.0 (+https://opentofu.org)", "OpenTofu"),
        ("curl/8.16.0", "curl"),
        ("Wget/1.21.4", "Wget"),
        ("python-requests/2.32.5", "Python Requests"),
        ("python-httpx/0.28.1", "Python httpx"),
        ("Python/3.11 aiohttp/3.9.5", "Python aiohttp"),
        ("Go-http-client/2.0", "Go HTTP client"),
        ("Boto3/1.34.0 md/Botocore#1.34.0 ua/2.0 os/linux#6.1 md/arch#x86_64 lang/python#3.11.4", "Boto3 on Linux"),
        ("aws-cli/2.15.30 Python/3.11.8 Linux/5.10 exe/x86_64", "AWS CLI on Linux"),
        ("aws-sdk-go/1.44.0 (go1.20; linux; amd64)", "aws-sdk-go on Linux"),
        ("kubectl/v1.30.0 (darwin/arm64) kubernetes/7c48c2b", "kubectl on macOS"),
        ("kubectl.exe/v1.29.1 (windows/amd64) kubernetes/bc401b9", "kubectl on Windows"),
        ("PostmanRuntime/7.39.0", "Postman"),
        ("Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.19045; en-US) PowerShell/7.4.2", "PowerShell on Windows"),
        ("git/2.44.0", "git"),
        ("git/2.39.3 (Apple Git-146)", "git on macOS"),
        ("GitHub CLI 2.50.0", "GitHub CLI"),
        ("glab/1.40.0", "GitLab CLI"),
        ("argocd-cli", "argocd-cli"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Googlebot"),
        ("who knows", "Unknown"),
        ("Mozilla/5.0", "Unknown"),
        ("", "Unknown"),
        (None, "Unknown"),
    ],
)  # fmt: skip
def test_a_person_is_labelled_by_browser_and_system(user_agent: str | None, label: str) -> None:
    assert Actors(100).label("user", user_agent).text == label


def test_the_user_agent_is_kept_in_ecs_s_fields() -> None:
    label = Actors(100).label("user", MAC_CHROME)
    assert label.user_agent is not None
    found = json.loads(bytes(label.user_agent))
    assert found == {
        "original": MAC_CHROME,
        "name": "Chrome",
        "version": "142",
        "os": {"name": "macOS", "full": "macOS"},
        "device": {"name": "Mac"},
    }


@pytest.mark.parametrize(
    ("user_agent", "browser", "system"),
    [
        (MAC_CHROME, "Chrome 142", "macOS"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:144.0) Gecko/20100101 Firefox/144.0", "Firefox 144.0", "macOS"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_13_6) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80.0.3987.149 Safari/537.36", "Chrome 80.0.3987", "macOS 10.13.6"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0", "Firefox 144.0", "Windows"),
        ("Mozilla/5.0 (Windows NT 6.1; Win64; x64; rv:115.0) Gecko/20100101 Firefox/115.0", "Firefox 115.0", "Windows 7"),
        ("Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36", "Chrome 142", "Android"),
        ("Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.7444.102 Mobile Safari/537.36", "Chrome 142.0.7444", "Android 14"),
        (IPHONE + "Version/26.0 Mobile/15E148 Safari/604.1", "Safari 26.0", "iOS"),
        (IPHONE + "Version/18.6 Mobile/15E148 Safari/604.1", "Safari 18.6", "iOS 18.6"),
    ],
)  # fmt: skip
def test_a_version_that_every_machine_sends_is_left_out(user_agent: str, browser: str, system: str) -> None:
    found = parse(user_agent)
    assert (found.browser.full, found.os.full) == (browser, system)


def real() -> list[str]:
    """User agents of the world: browsers by their share, and everything that is not a browser."""
    browsers = files("fake_useragent").joinpath("data/browsers.jsonl").read_text(encoding="utf-8").splitlines()
    robots = json.loads(files("crawleruseragents").joinpath("crawler-user-agents.json").read_text(encoding="utf-8"))
    instances = [each for robot in robots for each in robot.get("instances", ())]
    return list(dict.fromkeys([*(json.loads(line)["useragent"] for line in browsers), *instances]))


def test_thousands_of_real_user_agents_have_a_label_and_few_are_unknown() -> None:
    texts, actors = real(), Actors(100)
    labels = [actors.label("user", text) for text in texts]
    unknown = Counter(label.text for label in labels)["Unknown"]
    print(f"{len(texts)} user agents, {unknown} unknown ({unknown / len(texts):.1%})")
    assert len(texts) > 2500
    assert unknown <= UNKNOWN_SHARE_MAX * len(texts)
    for text, label in zip(texts, labels, strict=True):
        assert label.text
        assert label.text.isprintable()
        assert not label.text.startswith("Mozilla")
        assert label.user_agent is not None
        assert json.loads(bytes(label.user_agent))["original"] == text[:2048]


def test_every_real_browser_has_a_label_of_browser_and_system() -> None:
    actors = Actors(100)
    lines = files("fake_useragent").joinpath("data/browsers.jsonl").read_text(encoding="utf-8").splitlines()
    for text in {json.loads(line)["useragent"] for line in lines}:
        assert " on " in actors.label("user", text).text, text


@settings(deadline=None)
@given(st.text(max_size=5000))
def test_any_user_agent_gives_an_answer(text: str) -> None:
    label = Actors(10).label("user", text)
    assert label.text
    assert label.user_agent is None or json.loads(bytes(label.user_agent))["original"] == text[:2048]
    assert parse(text).is_bot in (True, False)


@pytest.mark.parametrize("word", ["a", "A ", "a/", "(compatible; ", "Mozilla/5.0 (compatible; a ", "1.", "PowerShell/"])
def test_no_user_agent_takes_long_to_read(word: str) -> None:
    assert parse(word * 100_000).browser.family  # the time limit of the tests is what a bad pattern would meet
