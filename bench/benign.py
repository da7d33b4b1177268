"""What the detections find where nothing is wrong: a week of made events, a million of them, and every hit listed.

Each ten minutes of the events' time are built and stored as they would arrive, and then one run of the detections looks at
them. On standard output, one JSON object per figure: the hits, and what a run costs for each event.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import header

from auditship.sample import Sample
from indexer.assemble import builder_of, places_of
from indexer.build import Block, Builder
from indexer.decode import decode_block
from indexer.detect.cursor import Cursor
from indexer.detect.detector import Detector
from indexer.detect.ruleset import Ruleset
from indexer.document import Entry
from indexer.enrich import demo_database
from indexer.organizations import Policies, Policy
from indexer.settings import EnrichmentSettings
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter

GATEWAYS = ("web", "cli", "api")
START_MS = 1_795_392_000_000
STEP_MS = 600
RUN_MS = 600_000


def entries_of(builder: Builder, sample: Sample, number: int, count: int) -> list[Entry]:
    """That many events from the ``number``-th on, as they would arrive at the end of their time."""
    lines: dict[str, list[bytes]] = {gateway: [] for gateway in GATEWAYS}
    for at in range(number, number + count):
        gateway = GATEWAYS[at % len(GATEWAYS)]
        lines[gateway].append(sample.line(gateway, START_MS + at * STEP_MS))
    arrived_ms = START_MS + (number + count) * STEP_MS
    entries: list[Entry] = []
    for gateway, part in lines.items():
        data = b"".join(part)
        head = header(data, gateway=gateway, offset=number * 1000, created_ms=arrived_ms)
        block = Block.of(head, sender="", now_ms=arrived_ms - 1)
        entries += [builder.build(block, decoded) for decoded in decode_block(head, data)]
    return entries


def run(events: int, seed: int) -> None:
    """Builds, stores and looks, and prints what came of it."""
    settings = EnrichmentSettings(city_database=demo_database.path())
    builder = builder_of(settings, places_of(settings), retention="30d")
    policies = Policies((Policy(id="*", verified_domains=("example.com",)),), "30d")
    sample, now_ms, took_s, most_s = Sample(seed), START_MS, 0.0, 0.0
    hits: list[Entry] = []
    with tempfile.TemporaryDirectory(prefix="auditship-benign-") as name:
        folder = Path(name)
        writer = EmbeddedWriter(folder / "store", lambda: now_ms)
        detector = Detector(
            Ruleset.load(),
            EmbeddedReader(folder / "store", lambda: now_ms),
            writer=EmbeddedWriter(folder / "store", lambda: now_ms),
            cursor=Cursor(folder / "cursor"),
            clock_ms=lambda: now_ms,
            policies=policies,
        )
        with closing(detector), asyncio.Runner() as runner:
            detector.run_once()
            per_run = RUN_MS // STEP_MS
            for number in range(0, events, per_run):
                entries = entries_of(builder, sample, number, min(per_run, events - number))
                now_ms = START_MS + (number + len(entries)) * STEP_MS
                runner.run(writer.append(entries, redelivered=False))
                began_s = time.process_time()
                hits += detector.run_once()
                took_s += (spent_s := time.process_time() - began_s)
                most_s = max(most_s, spent_s)
            runner.run(writer.close())
    for hit in hits:
        document = orjson.loads(hit.body)
        found = {"rule": document["rule"]["id"], "time": document["@timestamp"], "reason": document["event"]["reason"]}
        print(json.dumps({"figure": "benign_hit", "severity": document["audit"]["severity"], **found}))
    print(json.dumps({"figure": "benign_hits", "value": len(hits), "events": events, "unit": "1"}))
    print(json.dumps({"figure": "detect_cpu_us_per_event", "value": round(took_s / events * 1e6, 1), "unit": "us"}))
    print(json.dumps({"figure": "detect_run_max_s", "value": round(most_s, 2), "unit": "s", "events": per_run}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    run(options.events, options.seed)
