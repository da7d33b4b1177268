"""The real indexer in front of a store that discards: what remains is receiving, decoding, enriching and encoding.

Nobody is known to the store beforehand: whoever acts is looked up there once, and from then on the worker knows them.

python bench/discard.py PORT CONFIG
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from auditship.settings import load
from indexer.assemble import indexer_of, settle
from indexer.document import Entry
from indexer.server import application
from indexer.settings import IndexerSettings
from indexer.store.contract import Verdict

OWN = "audit.agent"
"""What agents have to say of themselves is no event."""


class Discard:
    """A store that takes everything and keeps nothing; at its end it says how many events those were."""

    def __init__(self) -> None:
        self._events = 0

    async def append(self, entries: Sequence[Entry], *, redelivered: bool) -> Sequence[Verdict]:
        """Says of every entry that it is stored."""
        del redelivered
        if entries and entries[0].dataset != OWN:  # a block is of one gateway
            self._events += len(entries)
        return [Verdict.CREATED] * len(entries)

    async def ready(self) -> None:
        """Always."""

    async def close(self) -> None:
        """Nothing to close."""
        print(f"events discarded: {self._events}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    app = application(indexer_of(load(IndexerSettings, Path(sys.argv[2])), writer=Discard()))
    settle()
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_config=None, access_log=False)
