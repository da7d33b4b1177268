"""A store as the contract's tests see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from indexer.document import Entry
from indexer.store.contract import Reader, Refused, Verdict, Writer

NOW_MS = 1_795_460_000_000
"""2026-11-23T18:53:20Z, a while after the sample entries."""


@dataclass
class Store:
    """A store of its own for one test."""

    open_writer: Callable[[], Writer]
    reader: Reader
    refresh: Callable[[], object]

    def append(self, entries: Sequence[Entry], *, redelivered: bool = False) -> list[Verdict | Refused]:
        """Stores entries with a writer of their own, and makes them visible."""

        async def work() -> list[Verdict | Refused]:
            writer = self.open_writer()
            try:
                return list(await writer.append(entries, redelivered=redelivered))
            finally:
                await writer.close()

        verdicts = asyncio.run(work())
        self.refresh()
        return verdicts
