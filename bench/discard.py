"""The real indexer in front of a store that discards: what remains is receiving, decoding, enriching and encoding.

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


class Discard:
    """A store that takes everything and keeps nothing."""

    async def append(self, entries: Sequence[Entry], *, redelivered: bool) -> Sequence[Verdict]:
        """Says of every entry that it is stored."""
        del redelivered
        return [Verdict.CREATED] * len(entries)

    async def ready(self) -> None:
        """Always."""

    async def close(self) -> None:
        """Nothing to close."""


if __name__ == "__main__":
    app = application(indexer_of(load(IndexerSettings, Path(sys.argv[2])), writer=Discard()))
    settle()
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_config=None, access_log=False)
