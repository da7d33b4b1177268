"""Cuts at newlines. Pure, and never a loop over lines: a block's worth of bytes costs two scans at memory speed.

But for lines that are so short that a block may not hold them all: their end is looked for one by one.
"""

from __future__ import annotations

from typing import NamedTuple

from auditship.block import LINES_MAX, count_lines


class Frame(NamedTuple):
    """Whole lines in a buffer: where they end (the start, if there is none), and how many they are."""

    end: int
    lines: int


def whole_lines(buffer: bytearray, start: int, end: int) -> Frame:
    """The whole lines in ``buffer[start:end]``, whose first byte begins a line: no more of them than a block may hold."""
    last = buffer.rfind(b"\n", start, end) + 1
    if not last:
        return Frame(start, 0)
    lines = count_lines(buffer, start, last)
    if lines <= LINES_MAX:
        return Frame(last, lines)
    last = start
    for _ in range(LINES_MAX):
        last = buffer.index(b"\n", last) + 1
    return Frame(last, LINES_MAX)


def nul_run(data: bytes | bytearray | memoryview) -> int:
    """How many NUL bytes stand at the beginning: what a writer leaves that goes on at its old offset after a truncation."""
    whole = bytes(data)
    return len(whole) - len(whole.lstrip(b"\0"))
