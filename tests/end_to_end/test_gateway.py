"""From a person's request at a gateway to the document that an analyst finds, with real clients all the way."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from product import Product, free_port

from indexer.enrich import demo_database

CURL = shutil.which("curl")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
BROWSER_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-dev-shm-usage", "--no-default-browser-check", "--disable-extensions",
)  # fmt: skip


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    store = f'[store]\npath = "store"\n[enrichment]\ncity_database = "{demo_database.path()}"\n'
    with Product(tmp_path, store=store) as product:
        yield product


@pytest.fixture
def gateway(product: Product) -> Iterator[str]:
    """A real gateway whose log the product's agent tails; its address."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).parents[1] / "gateway_app.py"), str(port), str(product.logs / "web.jsonl")]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def curl(*arguments: str) -> str:
    assert CURL, "curl is needed"
    return subprocess.run([CURL, "-s", "--max-time", "20", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.program("curl")
def test_requests_of_curl_become_documents(product: Product, gateway: str) -> None:
    product.start_indexer()
    product.start_agent()
    curl("-X", "POST", f"{gateway}/login", "-d", '{"user":"ada","password":"guess"}', "-H", "X-Request-Id: r-1")
    curl("-X", "POST", f"{gateway}/login", "-d", '{"user":"ada","password":"correct horse"}')
    curl("-X", "PATCH", f"{gateway}/projects/p-3", "-H", "X-User: ada", "-A", "acme-cli/2.4.1 (linux; amd64)")
    curl("-X", "POST", f"{gateway}/deploy", "-H", "X-Run: 77", "-A", "GitHub-Actions-Runner/2.329.0")
    documents = product.await_stored(4)
    by_action = {(each["event"]["action"], each["event"]["outcome"]): each for each in documents}
    failed = by_action["authentication.login", "failure"]
    assert failed["audit"]["severity"] == failed["log"]["level"] == "critical"
    assert failed["event"]["severity"] == 99
    assert failed["event"]["reason"] == "wrong password; failed authentication"
    assert failed["http"]["request"]["id"] == "r-1"
    assert failed["audit"]["actor"] == {"type": "user", "label": "curl"}
    assert failed["user"]["full_name"] == "Ada Lovelace"
    assert failed["source"] == {"ip": "127.0.0.1"}
    assert failed["audit"]["location"] == "Unknown"
    assert by_action["authentication.login", "success"]["audit"]["severity"] == "info"
    updated = by_action["project.update", "success"]
    assert updated["audit"]["actor"]["label"] == "acme-cli on Linux"
    assert updated["audit"]["changes"] == [{"field": "name", "from": "old", "to": "new"}]
    deployed = by_action["application.deploy", "success"]
    assert deployed["audit"]["actor"]["label"] == "Automated"
    assert deployed["audit"]["location"] == "GitHub Actions, 127.0.0.1"
    assert deployed["audit"]["ci"] == {"platform": "GitHub Actions", "run_id": "77"}
    assert "full_name" not in deployed["user"]


@pytest.mark.program(*BROWSERS)
def test_a_person_s_browser_is_told_by_its_name(product: Product, gateway: str, tmp_path: Path) -> None:
    product.start_indexer()
    product.start_agent()
    shown = browse(f"{gateway}/", tmp_path / "profile")
    assert ">200<" in shown
    (document,) = product.await_stored(1)
    assert document["event"]["action"] == "project.update"
    assert "Chrome" in document["audit"]["actor"]["label"]
    assert document["audit"]["actor"]["label"].endswith(" on Linux")
    assert "HeadlessChrome" in document["user_agent"]["original"]


@pytest.mark.program(*BROWSERS)
def test_the_page_shows_what_happened_and_hostile_text_as_text(product: Product, tmp_path: Path) -> None:
    event = {
        "timestamp": "2026-11-23T10:00:00Z",
        "organization": {"id": "org-1"},
        "actor": {"type": "user", "id": "u-1", "name": "<script>document.title='owned'</script>"},
        "action": "project.update",
        "resource": {"type": "project", "name": '"><img src=x onerror=alert(1)>'},
        "status": "success",
        "ip": "203.0.113.7",
    }
    (product.logs / "web.jsonl").write_text(json.dumps(event) + "\n")
    product.start_indexer()
    product.ship()
    shown = browse(product.url, tmp_path / "profile")
    assert "<title>auditship</title>" in shown
    assert "&lt;script&gt;document.title" in shown
    assert "<img" not in shown
    assert "Berlin, Berlin, 203.0.113.7" in shown
    assert "✓" in shown
    assert 'title="2026-11-23T10:00:00Z"' in shown, "the script has put the time into the reader's own"


def browse(url: str, profile: Path) -> str:
    """The page as the browser has it in the end."""
    assert BROWSER
    command = [BROWSER, *BROWSER_OPTIONS, f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--dump-dom", url]
    environment = {**os.environ, "TZ": "UTC"}
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=90, env=environment).stdout
