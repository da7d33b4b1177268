"""Which stream a file is.

A file is the same stream as before only if its device and inode are the same, **and** its first line, **and** it is not
shorter than what was read of it, **and** the bytes just before that position are those that were read. Otherwise it is a new
stream of the next generation. Inodes are reused at once, first lines can be equal headers, a file can be truncated and grow
past the old offset: no part alone is enough.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from auditship.block import CHAIN_START, FIRST_LINE_BYTES_MAX, first_line_digest, stream_id

TAIL_BYTES_MAX: Final = 1024
"""How many bytes before a position are remembered, by their hash."""


class FirstLine(NamedTuple):
    """A file's first line, of which the first 4 KiB count: its hash, and how many bytes that is over."""

    digest: bytes
    length: int

    @classmethod
    def of(cls, head: bytes, *, is_ended: bool = False) -> FirstLine | None:
        """From a file's first 4 KiB (all of it, if it is shorter); none while the line is not complete.

        ``is_ended``: nobody writes to it any more, and what there is of a line is all of it.
        """
        end = head.find(b"\n", 0, FIRST_LINE_BYTES_MAX) + 1
        if not end:
            if not head or (len(head) < FIRST_LINE_BYTES_MAX and not is_ended):
                return None
            end = min(len(head), FIRST_LINE_BYTES_MAX)
        return cls(first_line_digest(head[:end]), end)

    def begins(self, data: memoryview) -> bool:
        """Whether a file whose beginning this is still begins with that line."""
        return len(data) >= self.length and first_line_digest(bytes(data[: self.length])) == self.digest


class Identity(NamedTuple):
    """What makes a stream this one."""

    device: int
    inode: int
    generation: int
    first_line: FirstLine

    def stream(self, agent: str) -> str:
        """The stream id."""
        return stream_id(agent, self.device, self.inode, self.generation, self.first_line.digest)


class Mark(NamedTuple):
    """A place in a stream, and how to know it again: the chain value there, and the bytes before it by their hash."""

    offset: int
    chain: bytes
    tail_digest: bytes
    tail_bytes: int

    @classmethod
    def after(cls, offset: int, chain: bytes, before: bytes | bytearray | memoryview) -> Mark:
        """The mark at an offset; ``before`` ends with the bytes that stand before it, as many as there are of 1 KiB."""
        tail = memoryview(before)[-min(TAIL_BYTES_MAX, offset) :] if offset else memoryview(b"")
        return cls(offset, chain, tail_digest(tail), len(tail))


def tail_digest(data: bytes | memoryview) -> bytes:
    """BLAKE2b-128 of the bytes before a position."""
    return hashlib.blake2b(data, digest_size=16, person=b"auditship-tail").digest()


START: Final = Mark.after(0, CHAIN_START, b"")
"""The beginning of every stream."""
