"""What the flow of a block promises beside its documents: others have their turn, however short its lines are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from support import header

from indexer.assemble import builder_of, places_of
from indexer.document import Entry
from indexer.pipeline import LINE_BYTES, SLICE_BYTES, Pipeline
from indexer.settings import EnrichmentSettings
from indexer.store.contract import Verdict


class Taking:
    """A writer that has everything at once."""

    def __init__(self) -> None:
        self.sequences: list[int] = []

    async def ready(self) -> None:
        """Always."""

    async def append(self, entries: Sequence[Entry], *, redelivered: bool) -> Sequence[Verdict]:
        assert not redelivered
        self.sequences = [int(entry.body.partition(b'"sequence":')[2].partition(b"}")[0]) for entry in entries]
        return [Verdict.CREATED] * len(entries)

    async def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b"7" * 300 + b"\n"], ids=["blank", "carriage returns", "of usual length"])
def test_lines_give_others_their_turn_by_number_or_by_length(line: bytes) -> None:
    enrichment, data = EnrichmentSettings(), line * 4096

    async def work() -> tuple[int, list[int]]:
        writer, turns = Taking(), 0
        pipeline = Pipeline(builder_of(enrichment, places_of(enrichment), retention="30d"), writer)

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        beside = asyncio.create_task(others())
        receipt = await pipeline.take(header(data), data, sender="", organizations=frozenset())
        beside.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beside
        assert receipt.rejected == 4096
        return turns, writer.sequences

    turns, sequences = asyncio.run(work())
    assert turns >= 4096 * LINE_BYTES // SLICE_BYTES // 2
    assert sequences == list(range(0, len(data), len(line)))
