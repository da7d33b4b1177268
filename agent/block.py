"""A block on its way: what was read, from where to where, and what has become of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.identity import Mark
from auditship.block import BlockHeader

if TYPE_CHECKING:
    from agent.stream import Stream


@dataclass(slots=True, eq=False)
class Block:
    """Whole lines of one stream between two marks. ``body`` is compressed; it is let go when the block is acknowledged."""

    stream: Stream
    header: BlockHeader
    body: bytes
    end: Mark
    attempts: int = 0
    refusals: int = 0
    """How often the indexer found it malformed."""
    done: bool = False
    is_taken_back: bool = False
    """It waits for its stream to be read again from a place before it."""
    stale: bool = False
    """The stream was taken back to a place before it: its answer no longer counts."""

    def redeliver(self) -> None:
        """From now on it says that an earlier attempt's outcome is unknown."""
        if not self.header.redelivered:
            self.header = replace(self.header, redelivered=True)
