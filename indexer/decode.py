r"""Decodes: from a block's bytes to lines, each either an event or the reason why it is none.

A line's terminator is ``\n`` or ``\r\n``. What a crash or a stale writer leaves before a line (a run of NULs), and a byte
order mark at the beginning of a file, are taken off and noted as tags, so that the very bytes can be told again. Every
line of a block yields exactly one :class:`Decoded`, in order, whatever its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from auditship.block import BlockHeader
from auditship.line import Line, LineError, decode

BOM = b"\xef\xbb\xbf"


class Decoded(Struct, frozen=True, gc=False):
    """One line: where it begins in its stream, its bytes as in the block, its text, and what it says."""

    offset: int
    raw: bytes
    """Without the newline; what identity is made of."""
    text: bytes
    """Without carriage return, NULs and byte order mark; what an analyst reads."""
    line: Line | None
    extra: bytes
    error: LineError | None
    tags: tuple[str, ...]
    hash: str | None = None
    """The hash of the text before anything was hidden in it; none: that of the text."""
    plain: tuple[Line, bytes] | None = None
    """The line and its extra fields before anything was hidden: to be judged by, never to be stored."""


def decode_block(header: BlockHeader, data: bytes) -> Iterator[Decoded]:
    """The lines of a block, in order."""
    if not is_plain(header, data):
        yield from decode_with_care(header, data)
        return
    offset = header.offset
    for raw in data[:-1].split(b"\n"):
        yield decode_line(offset, raw)
        offset += len(raw) + 1


def is_plain(header: BlockHeader, data: bytes) -> bool:
    """Whether nothing has to be taken off any line, nor is any cut off: :func:`decode_line` will do."""
    return (
        not header.unterminated
        and header.truncated_from is None
        and b"\r" not in data
        and b"\0" not in data
        and (header.offset > 0 or not data.startswith(BOM))
        and _is_utf8(data)
    )


def decode_line(offset: int, raw: bytes) -> Decoded:
    """A line that is text as it stands."""
    try:
        line, extra = decode(raw)
    except LineError as error:
        return Decoded(offset, raw, raw, None, b"", error if raw and not raw.isspace() else LineError("blank"), ())
    return Decoded(offset, raw, raw, line, extra, None, ())


def decode_with_care(header: BlockHeader, data: bytes) -> Iterator[Decoded]:
    """The lines of a block in which something is not as usual, as :func:`is_plain` tells."""
    offset, is_text = header.offset, _is_utf8(data)
    for raw in data[:-1].split(b"\n"):
        text, tags = _clean(raw, offset)
        if header.unterminated:
            tags = (*tags, "unterminated")
        try:
            if header.truncated_from is not None:
                kept = len(raw)
                raise LineError(f"longer than the agent may send: {header.truncated_from} bytes, of which {kept} were kept")
            if not text or text.isspace():
                raise LineError("blank")
            if not is_text and not _is_utf8(text):
                raise LineError("not UTF-8")
            line, extra = decode(text)
        except LineError as error:
            yield Decoded(offset, raw, text, None, b"", error, tags)
        else:
            yield Decoded(offset, raw, text, line, extra, None, tags)
        offset += len(raw) + 1


def _clean(raw: bytes, offset: int) -> tuple[bytes, tuple[str, ...]]:
    """The line's text, and tags for what was taken off it."""
    text, tags = raw, []
    if text.startswith(b"\0"):
        text = text.lstrip(b"\0")
        tags.append("nul_prefix")
    if offset == 0 and text.startswith(BOM):
        text = text[len(BOM) :]
        tags.append("bom")
    if text.endswith(b"\r"):
        text = text[:-1]
        tags.append("crlf")
    return text, tuple(tags)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
