"""The flow of one block through the indexer: decode, enrich, write, receipt.

A receipt is given only when the store has every line durably, as a document or as a rejected line. An entry that the store
refuses for good (a mapping conflict, a document too deep) is stored as a rejected line in its stead, so that it neither is
lost nor stops those beside it. While the store cannot take anything, :class:`~indexer.store.contract.Unavailable` passes
through and the lines stay the agent's.

The work on lines runs in slices between which other requests have their turn; a short line counts for :data:`LINE_BYTES`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Final, TypeVar

from auditship.block import BlockHeader, Receipt
from auditship.clock import now_ms
from auditship.line import LineError
from indexer.build import LATER, Block, Builder
from indexer.decode import Decoded, decode_block, decode_line, decode_with_care, is_plain
from indexer.document import REJECTED, Entry
from indexer.store.contract import Refused, Unavailable, Verdict, Writer
from indexer.watch import Watch
from indexer.whereabouts import Whereabouts

SLICE_BYTES: Final = 256 * 1024
"""How many bytes of lines are worked on before others have their turn: some 5 ms."""
BATCH_BYTES: Final = 32 * 1024
"""How many bytes of lines are worked on together, at least: some sixty lines."""
BATCH_LINES: Final = 256
"""Not more of them, however short."""
LINE_BYTES: Final = 512
"""What a line counts for at least, as work and as memory: its document, or that of its rejection, is never shorter. Most lines
have 300 to 600 bytes, and count for what they are, or less than twice that."""

_Built = tuple[list[Entry], list[tuple[int, Decoded]]]
_Item = TypeVar("_Item")
_log = logging.getLogger("auditship.indexer")


class Pipeline:
    """Takes blocks for one worker process."""

    def __init__(
        self,
        builder: Builder,
        writer: Writer,
        *,
        whereabouts: Whereabouts | None = None,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._builder = builder
        self._writer = writer
        self._whereabouts = whereabouts
        self._clock = clock

    async def take(self, header: BlockHeader, data: bytes, *, sender: str, organizations: frozenset[str]) -> Receipt:
        """Stores a block's lines.

        Args:
            header: what the block's headers say.
            data: the block's uncompressed bytes, which match them.
            sender: the name that the sender proved; may be empty.
            organizations: those the sender may speak of; none: all.

        Raises:
            Unavailable: the store cannot take them now; send the block again, as redelivered.
        """
        block = Block.of(header, sender=sender, now_ms=self._clock(), organizations=organizations)
        watch = Watch(self._whereabouts, block.ingested_ms) if self._whereabouts else None
        entries = await self._entries(block, header, data, watch)
        verdicts = await self._writer.append(entries, redelivered=header.redelivered)
        if refused := _refused(verdicts):
            lines = [decoded for at, decoded in enumerate(decode_block(header, data)) if at in refused]
            again = await self._reject(block, lines, refused, redelivered=header.redelivered)
            entries, verdicts = _replaced(entries, again[0]), _replaced(verdicts, again[1])
        elif watch:
            watch.learn()  # of nothing that was stored otherwise than judged: its tags may be gone with the document
        return _receipt(entries, verdicts)

    async def close(self) -> None:
        """Asks the store nothing any more."""
        if self._whereabouts:
            await self._whereabouts.close()

    async def _entries(self, block: Block, header: BlockHeader, data: bytes, watch: Watch | None) -> list[Entry]:
        """What the lines become; those whose actors have to be looked up come last, in their order, and take their places."""
        way = self._plain if is_plain(header, data) else self._careful
        entries, waiting = await way(block, header, data, watch)
        if watch and waiting:
            await watch.read()
            worked = 0
            for at, decoded in waiting:
                entries[at] = self._builder.build(block, decoded, watch)
                worked = await _with_turns(worked + weight(len(decoded.raw), 1))
        return entries

    async def _plain(self, block: Block, header: BlockHeader, data: bytes, watch: Watch | None) -> _Built:
        """Lines that are text as they stand, as nearly all are: entries, and what has to wait, at its place."""
        entries: list[Entry] = []
        waiting: list[tuple[int, Decoded]] = []
        rest, at, worked = BytesIO(data), 0, 0
        while lines := rest.readlines(BATCH_BYTES):  # finds newlines faster than anything that splits
            if len(lines) > BATCH_LINES:
                del lines[BATCH_LINES:]
                rest.seek(at + sum(map(len, lines)))
            texts = [line[:-1] for line in lines]
            offset = header.offset + at
            taken, later = self._builder.take(block, offset, texts, watch)
            waiting += [(len(entries) + n, decode_line(offset + sum(map(len, lines[:n])), texts[n])) for n in later]
            entries += taken
            worked = await _with_turns(worked + weight(rest.tell() - at, len(lines)))
            at = rest.tell()
        return entries, waiting

    async def _careful(self, block: Block, header: BlockHeader, data: bytes, watch: Watch | None) -> _Built:
        """The same for lines of which something has to be taken off."""
        entries: list[Entry] = []
        waiting: list[tuple[int, Decoded]] = []
        worked = 0
        for decoded in decode_with_care(header, data):
            entry = self._builder.build(block, decoded, watch)
            if entry is LATER:
                waiting.append((len(entries), decoded))
            entries.append(entry)
            worked = await _with_turns(worked + weight(len(decoded.raw), 1))
        return entries, waiting

    async def _reject(
        self, block: Block, lines: Sequence[Decoded], refused: dict[int, Refused], *, redelivered: bool
    ) -> tuple[dict[int, Entry], dict[int, Verdict | Refused]]:
        """Stores refused entries as rejected lines."""
        entries = {
            at: self._builder.reject(block, line, LineError(f"refused by the store: {why.reason}"))
            for line, (at, why) in zip(lines, refused.items(), strict=True)
        }
        _log.warning("%d lines of %s refused by the store, first: %s", len(refused), block.stream, why_of(refused))
        verdicts = await self._writer.append(list(entries.values()), redelivered=redelivered)
        for verdict in verdicts:
            if isinstance(verdict, Refused):
                raise Unavailable(f"the store refuses even a rejected line: {verdict.reason}", retry_after_s=30)
        return entries, dict(zip(entries, verdicts, strict=True))


def weight(length: int, lines: int) -> int:
    """What lines of that length, in bytes, count for."""
    return max(length, lines * LINE_BYTES)


async def _with_turns(worked: int) -> int:
    """The bytes worked on since others had their turn; gives them one when it is time."""
    if worked <= SLICE_BYTES:
        return worked
    await asyncio.sleep(0)
    return 0


def _refused(verdicts: Sequence[Verdict | Refused]) -> dict[int, Refused]:
    if verdicts.count(Verdict.CREATED) == len(verdicts):
        return {}
    return {at: verdict for at, verdict in enumerate(verdicts) if isinstance(verdict, Refused)}


def why_of(refused: dict[int, Refused]) -> str:
    """The first refusal's reason, short enough for a log."""
    return next(iter(refused.values())).reason[:200]


def _replaced(items: Sequence[_Item], by: dict[int, _Item]) -> list[_Item]:
    return [by.get(at, item) for at, item in enumerate(items)]


def _receipt(entries: Sequence[Entry], verdicts: Sequence[Verdict | Refused]) -> Receipt:
    assert len(entries) == len(verdicts)
    duplicates = len(verdicts) - verdicts.count(Verdict.CREATED)
    rejected = [entry.dataset for entry in entries].count(REJECTED)
    if duplicates and rejected:
        pairs = zip(entries, verdicts, strict=True)
        rejected = sum(entry.dataset == REJECTED and verdict is Verdict.CREATED for entry, verdict in pairs)
    return Receipt(documents=len(entries) - duplicates - rejected, duplicates=duplicates, rejected=rejected)
