"""``auditship search``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from indexer.commands.options import asking, query_of, reading, record
from indexer.commands.show import COLUMNS, styled
from indexer.store.body import document_of
from indexer.store.contract import Hit, Page, Query, Reader

LIMIT_MAX = 10_000


@click.command()
@click.argument("query", default="")
@asking
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One document per line, also on a terminal.")
def search(query: str, config: Path | None, limit: int, as_json: bool, **filters: Any) -> None:
    r"""Find events, the newest first.

    QUERY is what Kibana's search bar takes: Lucene's syntax over the names of the Elastic Common Schema. A table on a
    terminal, one JSON document per line otherwise.

    \b
    auditship search 'audit.severity:critical AND user.name:ada*' --since 24h --config indexer.toml
    auditship search 'source.ip:"10.0.0.0/8" AND NOT event.action:project.read' --config indexer.toml
    auditship search --actor ada@example.com --outcome failure --config indexer.toml

    That it was asked, by whom, is itself recorded: --dataset access shows it.
    """
    with reading(config) as reader:
        page = newest(reader, asked := query_of(query, filters), limit)
    record(config, "search", asked, hits=len(page.hits))
    if as_json or not sys.stdout.isatty():
        for hit in page.hits:
            sys.stdout.buffer.write(hit.body + b"\n")
        sys.stdout.flush()
        return
    table = Table(*COLUMNS, box=None, header_style="bold")
    for hit in page.hits:
        table.add_row(*styled(document_of(hit.body)))
    console = Console()
    console.print(table if page.hits else "Nothing found.")
    if page.cursor:
        console.print(f"The newest {len(page.hits)}; there are more: --limit, or narrow the search.", style="dim")


def newest(reader: Reader, query: Query, limit: int) -> Page:
    """That many hits, in as many pages as the store makes of them."""
    hits: list[Hit] = []
    cursor: str | None = None
    while True:
        page = reader.search(query, limit=limit - len(hits), cursor=cursor)
        hits += page.hits
        cursor = page.cursor
        if cursor is None or len(hits) >= limit:
            return Page(hits, cursor)
