"""Tails: reads whole lines from where a stream stands into a block, hashed and compressed.

Each read begins up to 1 KiB before the position, so that the bytes before it are seen again and compared with those that were
read then: a file that was truncated, or overwritten, raises :class:`Changed` before any byte of it is taken for the next line.

Memory is one reused buffer and the compressed body; a line's length never decides how much. A line that does not fit into a
block is looked through for its end, in steps, and its beginning is sent, with its true length. A run of NULs as long as that,
which a writer leaves that goes on at its old offset after a truncation, is no line: it is passed over and told as a gap.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from zstandard import ZstdCompressor

from agent.block import Block
from agent.frame import nul_run, whole_lines
from agent.identity import TAIL_BYTES_MAX, Mark, tail_digest
from agent.osio import System
from agent.settings import AgentSettings
from agent.stream import Stream
from auditship.block import BlockHeader, chain_next, digest

LEVEL: Final = 1
"""zstd's fastest of the usual ones: six times smaller, at half a microsecond a line."""
SEARCH_STEPS_MAX: Final = 16
"""Buffers that one turn looks through for the end of a long line, before other streams have theirs."""


class Changed(Exception):  # noqa: N818 - news of the file, not a defect
    """The file no longer holds what was read of it."""


class Gap(Exception):  # noqa: N818 - likewise
    """Bytes that are no line: reading goes on at the mark."""

    def __init__(self, mark: Mark, reason: str) -> None:
        super().__init__(reason)
        self.mark = mark


class Tail:
    """Reads blocks; one thread's, for its buffer is used again and again.

    Args:
        system: the operating system.
        settings: sizes.
        agent: the agent's id.
        clock_ms: the wall clock, epoch milliseconds.
    """

    def __init__(self, system: System, settings: AgentSettings, agent: str, clock_ms: Callable[[], int]) -> None:
        self._system = system
        self._agent = agent
        self._host = settings.host
        self._clock_ms = clock_ms
        self._line_bytes_max = settings.line_bytes_max
        self.block_bytes_max = settings.block_bytes_max
        """Halved when the indexer says that blocks are too large."""
        self._buffer = bytearray(TAIL_BYTES_MAX + settings.block_bytes_max)
        self._view = memoryview(self._buffer)
        self._compress = ZstdCompressor(level=LEVEL).compress

    def read(self, stream: Stream) -> Block | None:
        """The next block of an open stream; none while there is no whole line behind its position.

        Raises:
            Changed: the file was truncated or overwritten.
            Gap: what stands there is no line.
            OSError: it cannot be read.
        """
        before = stream.position.tail_bytes
        got = self._read_around(stream, stream.position.offset, before, self.block_bytes_max)
        if got < before or tail_digest(self._view[:before]) != stream.position.tail_digest:
            raise Changed("what stands before the position is not what was read there")
        if not stream.position.offset and not stream.identity.first_line.begins(self._view[:got]):
            raise Changed("it begins with another line")
        frame = whole_lines(self._buffer, before, got)
        if frame.lines:
            return self._block(stream, self._view[before : frame.end], frame.lines, self._view[: frame.end])
        if got - before == self.block_bytes_max:
            return self._long_line(stream, before, got)
        if stream.ending and got > before:
            rest = bytes(self._view[before:got]) + b"\n"
            return self._block(stream, memoryview(rest), 1, self._view[:got], unterminated=True)
        return None

    def tail_is(self, file: int, mark: Mark) -> bool:
        """Whether the bytes before a mark in a file are those that were read there."""
        view = self._view[: mark.tail_bytes]
        return self._system.read_into(file, view, mark.offset - mark.tail_bytes) == len(view) and (
            tail_digest(view) == mark.tail_digest
        )

    def _read_around(self, stream: Stream, offset: int, before: int, size: int) -> int:
        """Fills the buffer with ``before`` bytes before the offset and up to ``size`` behind it."""
        assert stream.file is not None
        return self._system.read_into(stream.file, self._view[: before + size], offset - before)

    def _block(
        self,
        stream: Stream,
        data: memoryview,
        lines: int,
        seen: memoryview,
        *,
        truncated_from: int | None = None,
        unterminated: bool = False,
    ) -> Block:
        """A block of these bytes; ``seen`` ends where the stream will stand behind it."""
        hashed = digest(data)
        start = stream.position
        chain = chain_next(start.chain, hashed)
        header = BlockHeader(
            agent=self._agent,
            host=self._host,
            gateway=stream.gateway,
            path=os.fsencode(stream.path),
            stream=stream.id,
            offset=start.offset,
            length=len(data),
            lines=lines,
            digest=hashed,
            chain=chain,
            created_ms=self._clock_ms(),
            redelivered=start.offset < stream.redelivered_until,
            truncated_from=truncated_from,
            unterminated=unterminated,
        )
        return Block(stream, header, self._compress(data), Mark.after(start.offset + header.span, chain, seen))

    def _hole(self, stream: Stream, nuls: int) -> Gap:
        """At least so many NULs: a hole of any size is passed over at once, with what is left of its last block."""
        assert stream.file is not None
        position = stream.position
        end = self._system.data_from(stream.file, position.offset + nuls)
        end += nul_run(self._view[: self._read_around(stream, end, 0, self.block_bytes_max)])
        nuls = end - position.offset
        return Gap(Mark.after(end, position.chain, bytes(min(nuls, TAIL_BYTES_MAX))), f"{nuls} NUL bytes before the next line")

    def _long_line(self, stream: Stream, start: int, got: int) -> Block | None:
        """The block of a line that is longer than a block, once its end is found."""
        position = stream.position
        kept = min(self._line_bytes_max, self.block_bytes_max) - 1
        nuls = nul_run(self._view[start:got])
        if nuls >= kept:
            raise self._hole(stream, nuls)
        offset = max(stream.scan_from, position.offset)
        for _ in range(SEARCH_STEPS_MAX):
            before = min(TAIL_BYTES_MAX, offset)
            got = self._read_around(stream, offset, before, self.block_bytes_max)
            end = self._buffer.find(b"\n", before, got) + 1
            if end or (stream.ending and got < before + self.block_bytes_max):
                seen = bytes(self._view[max(0, (end or got) - TAIL_BYTES_MAX) : end or got])
                length = offset + (end or got) - before - position.offset
                self._read_around(stream, position.offset, 0, kept)
                data = bytes(self._view[:kept]) + b"\n"
                return self._block(stream, memoryview(data), 1, memoryview(seen), truncated_from=length)
            offset += got - before
            if got < before + self.block_bytes_max:
                break
        stream.scan_from = offset
        return None
