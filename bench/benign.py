"""What the detections find where nothing is wrong: a week of made events, a million of them, and every hit listed.

People are not always in one place: by day they work from an office, by night from home, through two networks; one in ten flies
to another city, stays for a day and flies back. They were in all of these places before the week, so none is new to them. Each
ten minutes of events go through the indexer's own pipeline, which asks the store where their people were and tags what is
unusual; then one run of the detections looks at them.

When the week is over, one person is suddenly elsewhere. Unless the rules that tell so fire on that, their quiet proved nothing,
and the status is 1. On standard output, one JSON object per figure: the hits, the tags, and what a run costs for each event.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import orjson
from mmdb_writer import MMDBWriter
from netaddr import IPSet

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import header

from auditship.clock import utc
from auditship.sample import PEOPLE, Sample
from indexer.assemble import builder_of, places_of
from indexer.detect.cursor import Cursor
from indexer.detect.detector import Detector
from indexer.detect.ruleset import Ruleset
from indexer.document import Entry
from indexer.enrich import demo_database
from indexer.enrich.habits import WarmUp
from indexer.organizations import Policies, Policy
from indexer.pipeline import Pipeline
from indexer.settings import EnrichmentSettings
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter
from indexer.whereabouts import Whereabouts

GATEWAYS = ("web", "cli", "api")
START_MS = 1_795_392_000_000
STEP_MS = 600
RUN_MS = 600_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
OFFICE_HOURS = range(8, 18)
FLIGHT_MS = 12 * HOUR_MS
"""No flight of the sample's takes longer; people in the air do nothing."""
TAGS = ("impossible_travel", "new_country", "new_network")
_PERSON = re.compile(rb'"id":"u-(\d+)".*"ip":"([^"]+)"')
_TIMESTAMP = re.compile(rb'"timestamp":"[^"]+"')


def place_of(number: int, usual: str, time_ms: int) -> str | None:
    """The address of a person, of that number and usual address, at a time; none in the air."""
    day, ms = divmod(time_ms - START_MS, DAY_MS)
    is_away = False
    if number % 10 == 3:
        since_departure_ms = (day - 1 - number // 10 % 3) * DAY_MS + ms - 6 * HOUR_MS
        if 0 <= since_departure_ms < 2 * DAY_MS + FLIGHT_MS:
            if not FLIGHT_MS <= since_departure_ms < 2 * DAY_MS:
                return None
            is_away = True
    return address_of(usual, is_away=is_away, is_home=ms // HOUR_MS not in OFFICE_HOURS)


def address_of(usual: str, *, is_away: bool, is_home: bool) -> str:
    """Of an office's address: that of a home in the same city, or of either in another city."""
    address = ipaddress.ip_address(usual)
    if address.version == 6:
        return str(address + (1 << 88 if is_home else 0))
    # A city of the demo's is a /26 or a /25; a network of ours is a /28.
    return str(ipaddress.ip_address(int(address) ^ (0x10 if is_home else 0) ^ (0x40 if is_away else 0)))


def write_networks(path: Path) -> Path:
    """An ASN database of the sample's addresses: a network for each /28, or /40."""
    writer = MMDBWriter(6, "benign-asn", ipv4_compatible=True)
    blocks = [("203.0.113.0/24", 28), ("198.51.100.0/24", 28), ("192.0.2.0/24", 28), ("2001:db8::/39", 40)]
    networks = [part for block, length in blocks for part in ipaddress.ip_network(block).subnets(new_prefix=length)]
    for number, network in enumerate(networks, 64512):
        writer.insert_network(IPSet([str(network)]), {"autonomous_system_number": number})
    writer.to_db_file(str(path))
    return path


def at(line: bytes, time_ms: int, address: str) -> bytes:
    """A line as it would be at another time and address."""
    usual = _PERSON.search(line)
    assert usual is not None
    line = line.replace(b'"ip":"%b"' % usual[2], b'"ip":"%b"' % address.encode())
    return _TIMESTAMP.sub(b'"timestamp":"%b"' % utc(time_ms).encode(), line, 1)


def people_of(seed: int) -> dict[int, tuple[str, bytes]]:
    """The sample's people by number: their usual addresses, and a success of each."""
    sample, people = Sample(seed), dict[int, tuple[str, bytes]]()
    while len(people) < PEOPLE:
        line = sample.line("web", 0)
        found = _PERSON.search(line)
        if found and b'"project.read"' in line and b'"success"' in line:
            people[int(found[1])] = found[2].decode(), line
    return people


def past_of(people: dict[int, tuple[str, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Before the week, by time: everybody at the office and at home, on a few days, and travellers in the other city."""
    for days in (20, 16, 12, 8):
        for hour in (0, 12):
            time_ms = START_MS - days * DAY_MS + hour * HOUR_MS
            lines = [
                at(line, time_ms, address_of(usual, is_away=days == 16 and number % 10 == 3, is_home=hour == 0))
                for number, (usual, line) in people.items()
            ]
            yield time_ms, b"".join(lines)


class Week:
    """The store, the indexer's pipeline and the detections, on a clock of their own."""

    def __init__(self, folder: Path, seed: int, stack: ExitStack) -> None:
        self.now_ms = START_MS - 30 * DAY_MS
        self.tags: Counter[str] = Counter()
        self._sample, self._offset = Sample(seed), 0
        self._runner = stack.enter_context(asyncio.Runner())
        settings = EnrichmentSettings(city_database=demo_database.path(), asn_database=write_networks(folder / "asn.mmdb"))
        places = places_of(settings)
        reader = stack.enter_context(closing(EmbeddedReader(folder / "store", self._clock)))
        writer = EmbeddedWriter(folder / "store", self._clock)
        stack.callback(lambda: self._runner.run(writer.close()))
        self._pipeline = Pipeline(
            builder_of(settings, places, retention="30d"),
            writer,
            whereabouts=Whereabouts(reader, WarmUp(), places.relays, clock=self._clock, count=self.tags.update),
            clock=self._clock,
        )
        stack.callback(lambda: self._runner.run(self._pipeline.close()))
        detector = Detector(
            Ruleset.load(),
            reader,
            writer=EmbeddedWriter(folder / "store", self._clock),
            cursor=Cursor(folder / "cursor"),
            clock_ms=self._clock,
            policies=Policies((Policy(id="*", verified_domains=("example.com",)),), "30d"),
        )
        self._detector = stack.enter_context(closing(detector))

    def take(self, gateway: str, data: bytes, now_ms: int) -> None:
        """A block that arrives then."""
        self.now_ms = now_ms
        head = header(data, gateway=gateway, offset=self._offset, created_ms=now_ms)
        self._offset += len(data)
        self._runner.run(self._pipeline.take(head, data, sender="", organizations=frozenset()))

    def look(self) -> list[Entry]:
        """One run of the detections, a moment after what arrived last."""
        self.now_ms += 1
        return self._detector.run_once()

    def lines(self, first: int, count: int) -> dict[str, bytes]:
        """That many events from the ``first`` on, by gateway, but for those of people in the air."""
        parts: dict[str, list[bytes]] = {gateway: [] for gateway in GATEWAYS}
        for number in range(first, first + count):
            gateway, time_ms = GATEWAYS[number % len(GATEWAYS)], START_MS + number * STEP_MS
            line = self._sample.line(gateway, time_ms)
            if found := _PERSON.search(line):
                usual = found[2].decode()
                address = place_of(int(found[1]), usual, time_ms)
                line = line.replace(found[2], address.encode()) if address else b""
            parts[gateway].append(line)
        return {gateway: b"".join(part) for gateway, part in parts.items()}

    def _clock(self) -> int:
        return self.now_ms


def run(events: int, seed: int) -> bool:
    """Builds, stores and looks, and prints what came of it; whether the rules could have told."""
    hits: list[Entry] = []
    took_s = most_s = 0.0
    with tempfile.TemporaryDirectory(prefix="auditship-benign-") as name, ExitStack() as stack:
        week = Week(Path(name), seed, stack)
        people = people_of(seed)
        for time_ms, data in past_of(people):
            week.take("web", data, time_ms)
        week.now_ms = START_MS
        week.look()
        week.tags.clear()
        per_run = RUN_MS // STEP_MS
        for first in range(0, events, per_run):
            count = min(per_run, events - first)
            for gateway, data in week.lines(first, count).items():
                week.take(gateway, data, START_MS + (first + count) * STEP_MS)
            began_s = time.process_time()
            hits += week.look()
            took_s += (spent_s := time.process_time() - began_s)
            most_s = max(most_s, spent_s)
        tags = dict(week.tags)
        wrong = suddenly_elsewhere(week, people)
    for hit in hits:
        document = told(hit)
        found = {"rule": document["rule"]["id"], "time": document["@timestamp"], "reason": document["event"]["reason"]}
        print(json.dumps({"figure": "benign_hit", "severity": document["audit"]["severity"], **found}))
    print(json.dumps({"figure": "benign_hits", "value": len(hits), "events": events, "unit": "1"}))
    print(json.dumps({"figure": "benign_tags", "value": sum(tags.values()), **tags, "unit": "1"}))
    print(json.dumps({"figure": "wrong_found", "value": len(wrong), "rules": sorted(wrong), "unit": "1"}))
    print(json.dumps({"figure": "detect_cpu_us_per_event", "value": round(took_s / events * 1e6, 1), "unit": "us"}))
    print(json.dumps({"figure": "detect_run_max_s", "value": round(most_s, 2), "unit": "s", "events": per_run}))
    return len(wrong) == len(TAGS)


def suddenly_elsewhere(week: Week, people: dict[int, tuple[str, bytes]]) -> set[str]:
    """The rules that fire when somebody in Europe is in São Paulo a minute later."""
    number, (usual, line) = next(each for each in people.items() if each[1][0].startswith("203.0.113."))
    now_ms = week.now_ms + RUN_MS
    lines = [at(line, now_ms - 2 * 60_000, usual), at(line, now_ms - 60_000, "198.51.100.200")]
    week.take("web", b"".join(lines), now_ms)
    person = f"u-{number:05}"
    rules = {tag.replace("_", "-") for tag in TAGS}
    return {document["rule"]["id"] for document in map(told, week.look()) if document["user"]["id"] == person} & rules


def told(hit: Entry) -> Any:
    """An alert's document."""
    return orjson.loads(hit.body)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(0 if run(options.events, options.seed) else 1)
