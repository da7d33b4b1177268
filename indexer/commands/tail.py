"""``auditship tail``."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
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
SEEN_MAX: Final = 200_000
PAGE: Final = 1000


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
            for hit in follow(reader, asked, clock.now_ms()):
                hits += 1
                if plain:
                    sys.stdout.buffer.write(hit.body + b"\n")
                    sys.stdout.flush()
                else:
                    console.print(Text("  ").join(styled(document_of(hit.body))), soft_wrap=True)
    except KeyboardInterrupt:
        record(config, "tail", asked, state="ended", hits=hits)


def follow(reader: Reader, query: Query, since_ms: int) -> Iterator[Hit]:
    """New hits by their arrival, each once; goes on for ever.

    Arrival is ``event.ingested``, so an event that is hours old by its own time is seen when it comes.
    """
    seen: OrderedDict[str, None] = OrderedDict()
    while True:
        began_ms = clock.now_ms()
        arrived = f"event.ingested:[{since_ms} TO *]"
        text = f"({query.text}) AND {arrived}" if query.text.strip() else arrived
        for hit in _all(reader, query, text):
            if hit.id not in seen:
                seen[hit.id] = None
                yield hit
        while len(seen) > SEEN_MAX:
            seen.popitem(last=False)
        since_ms = max(since_ms, began_ms - OVERLAP_MS)
        time.sleep(POLL_INTERVAL_S)


def _all(reader: Reader, query: Query, text: str) -> list[Hit]:
    """A query's hits, oldest first."""
    hits: list[Hit] = []
    cursor = None
    asked = Query(text, *(getattr(query, name) for name in list(Query.__dataclass_fields__)[1:]))
    while True:
        page = reader.search(asked, limit=PAGE, cursor=cursor)
        hits += page.hits
        if (cursor := page.cursor) is None:
            return hits[::-1]
