"""Unusual locations through the whole product: two workers, the demo's places, a kill in between."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

from product import Product

from indexer.enrich import demo_database

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
BERLIN, LISBON, SAO_PAULO = "203.0.113.7", "203.0.113.200", "198.51.100.200"
STORE = f"""workers = 2
[store]
path = "store"
[enrichment]
city_database = "{demo_database.path()}"
"""


def line(ip: str, time_ms: int, actor: str = "user") -> bytes:
    event = {
        "timestamp": time_ms,
        "organization": {"id": "org-1"},
        "actor": {"type": actor, "id": "ada"},
        "action": "project.read",
        "resource": {"type": "project"},
        "status": "success",
        "ip": ip,
    }
    return json.dumps(event).encode() + b"\n"


def test_a_new_country_is_tagged_once_also_by_another_worker_and_after_a_kill(tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    with Product(tmp_path, store=STORE) as product:
        log = product.logs / "web.jsonl"
        log.write_bytes(line(BERLIN, now_ms - 8 * DAY_MS) + line(BERLIN, now_ms - 20 * HOUR_MS))
        indexer = product.start_indexer()
        product.ship()
        with log.open("ab") as file:
            file.write(line(SAO_PAULO, now_ms - HOUR_MS) + line(SAO_PAULO, now_ms - HOUR_MS + 1))
        product.ship()
        with urllib.request.urlopen(f"{product.url}/metrics", timeout=10) as answer:
            assert b'auditship_indexer_unusual_locations_total{tag="new_country"} 1.0' in answer.read()
        product.kill(indexer)
        product.start_indexer()
        with log.open("ab") as file:
            file.write(line(SAO_PAULO, now_ms - HOUR_MS + 2) + line(LISBON, now_ms) + line(LISBON, now_ms + 1, "api_token"))
        product.ship()
        found = {each["event"]["original"].encode() + b"\n": each for each in product.export()}
    tagged = {original: (each["tags"], each["audit"]["severity"]) for original, each in found.items() if "tags" in each}
    assert len(found) == 7
    assert tagged.pop(line(SAO_PAULO, now_ms - HOUR_MS)) == (["new_country"], "warning")
    assert tagged.pop(line(LISBON, now_ms)) == (["new_country", "impossible_travel"], "warning")
    assert tagged == {}
