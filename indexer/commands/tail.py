"""``auditship tail``: gives what arrives, each event once.

An id is remembered for as long as a look may go back to it: :data:`OVERLAP_MS`. Where these would be more than
:data:`SEEN_MAX`, looks go back less far, but always :data:`OVERLAP_MIN_S`: what becomes visible later than that may be left
out of a flood. Nothing is given twice.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
from msgspec import Struct
from msgspec.json import Decoder
from rich.console import Console
from rich.text import Text

from auditship import clock
from indexer.commands.options import asking, query_of, reading, record
from indexer.commands.show import styled
from indexer.store.body import document_of
from indexer.store.contract import Hit, Query, Reader

POLL_INTERVAL_S: Final = 1.0
OVERLAP_MS: Final = 120_000
"""How far each look goes back before the last one: what arrives late, or is not to be seen at once, is seen then."""
OVERLAP_MIN_S: Final = 10
SEEN_MAX: Final = 200_000


class _Event(Struct):
    ingested: str


class _Arrived(Struct):
    event: _Event


_arrived = Decoder(_Arrived).decode


@click.command()
@click.argument("query", default="")
@asking
@click.option("--json", "as_json", is_flag=True, help="One document per line, also on a terminal.")
def tail(query: str, config: Path | None, as_json: bool, **filters: Any) -> None:
    r"""Follow new events as they arrive, until Ctrl-C.

    \b
    auditship tail --config indexer.toml
    auditship tail 'audit.severity:critical' --config indexer.toml
    """
    plain = as_json or not sys.stdout.isatty()
    console = Console()
    asked, hits = query_of(query, filters), 0
    try:
        with reading(config) as reader:
            record(config, "tail", asked, state="begun")
            for hit in follow(reader, asked):
                hits += 1
                if plain:
                    sys.stdout.buffer.write(hit.body + b"\n")
                    sys.stdout.flush()
                else:
                    console.print(Text("  ").join(styled(document_of(hit.body))), soft_wrap=True)
    except KeyboardInterrupt:
        record(config, "tail", asked, state="ended", hits=hits)


def follow(reader: Reader, query: Query) -> Iterator[Hit]:
    """New hits by their arrival, each once; goes on for ever.

    Arrival is ``event.ingested``, so an event that is hours old by its own time is seen when it comes.
    """
    looked_ms = clock.now_ms()
    seen = _Seen(looked_ms // 1000)
    cursor = None
    while True:
        began_ms = clock.now_ms()
        # The store goes back from its last look, or from now where the clock was set back: never to where ids are forgotten.
        overlap_ms = min(OVERLAP_MS, min(looked_ms, began_ms) - seen.since_s * 1000)
        for arrivals in reader.arrivals(query, cursor, known=seen.known, overlap_ms=overlap_ms):
            second = began_ms // 1000
            for hit in arrivals.hits:
                second = _second_of(hit)
                if seen.add(hit.id, second) and not arrivals.is_old:
                    yield hit
            seen.forget(second, began_ms // 1000)
            cursor = arrivals.cursor
        looked_ms = began_ms
        time.sleep(POLL_INTERVAL_S)


class _Seen:
    """The ids that were given, by the second of their arrival; all of those from ``since_s`` on."""

    def __init__(self, since_s: int) -> None:
        self.since_s = since_s
        self._ids: dict[int, set[str]] = {}

    def add(self, identity: str, second: int) -> bool:
        """Remembers an id; whether it is new."""
        ids = self._ids.setdefault(second, set())
        before = len(ids)
        ids.add(identity)
        return len(ids) > before

    def known(self, low_ms: int, high_ms: int) -> dict[int, int]:
        """How many are remembered, by second."""
        return {second: len(ids) for second, ids in self._ids.items() if low_ms <= second * 1000 < high_ms}

    def forget(self, reading_s: int, now_s: int) -> None:
        """Lets go of what is too old, and of the oldest if there is too much; not of what this look is still to read."""
        count = sum(map(len, self._ids.values()))
        for second in sorted(self._ids):
            latest_s = now_s - (OVERLAP_MIN_S if count > SEEN_MAX else OVERLAP_MS // 1000)
            if second >= min(reading_s, latest_s):
                return
            count -= len(self._ids.pop(second))
            self.since_s = max(self.since_s, second + 1)


def _second_of(hit: Hit) -> int:
    """When a hit arrived, in epoch seconds."""
    return int(datetime.fromisoformat(_arrived(hit.body).event.ingested).timestamp())
