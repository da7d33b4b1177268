"""A worker that knows nothing yet tells what is unusual by what either store knows."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from stores import NOW_MS, Store
from support import header

from indexer.assemble import builder_of, places_of
from indexer.enrich import demo_database
from indexer.enrich.habits import DAY_MS, WarmUp
from indexer.pipeline import Pipeline
from indexer.settings import EnrichmentSettings
from indexer.store.contract import Query
from indexer.whereabouts import Whereabouts

BERLIN, SAO_PAULO = "203.0.113.7", "198.51.100.200"
HOUR_MS = 3_600_000


def line(ip: str, time_ms: int, status: str = "success") -> bytes:
    event: dict[str, Any] = {
        "timestamp": time_ms,
        "organization": {"id": "Org-1"},
        "actor": {"type": "user", "id": "Ada"},
        "action": "project.read",
        "resource": {"type": "project"},
        "status": status,
        "ip": ip,
    }
    return json.dumps(event).encode() + b"\n"


def take(store: Store, data: bytes, offset: int) -> None:
    """One block, by a worker of its own."""

    async def work() -> None:
        settings = EnrichmentSettings(city_database=demo_database.path())
        whereabouts = Whereabouts(store.reader, WarmUp(), frozenset(), clock=lambda: NOW_MS)
        writer = store.open_writer()
        builder = builder_of(settings, places_of(settings), retention="30d")
        pipeline = Pipeline(builder, writer, whereabouts=whereabouts, clock=lambda: NOW_MS)
        try:
            await pipeline.take(header(data, offset=offset), data, sender="gw-1", organizations=frozenset())
        finally:
            await pipeline.close()
            await writer.close()

    asyncio.run(work())
    store.refresh()


def test_a_new_country_and_a_journey_are_told_by_a_fresh_worker(store: Store) -> None:
    past = line(BERLIN, NOW_MS - 8 * DAY_MS) + line(BERLIN, NOW_MS - HOUR_MS)
    tried, came = line(SAO_PAULO, NOW_MS - 2, "failure"), line(SAO_PAULO, NOW_MS - 1)
    take(store, past, 1)
    take(store, tried, 1 + len(past))
    take(store, came, 1 + len(past + tried))
    take(store, line(SAO_PAULO, NOW_MS), 1 + len(past + tried + came))
    hits = store.reader.search(Query("tags:(new_country OR impossible_travel OR location_unchecked)")).hits
    told = [(hit.time_ms - NOW_MS, json.loads(hit.body)["tags"], json.loads(hit.body)["event"]["reason"]) for hit in hits]
    assert told == [
        (
            -1,
            ["new_country", "impossible_travel"],
            "first time from Brazil in 30 days; impossible journey: 10,253 km from Berlin in 59 min",
        ),
        (-2, ["new_country"], "failed; no success from Brazil in 30 days"),
    ]
