"""Opens a block: from a request's headers and body to the very bytes that the agent read, or the reason why not.

Assumes nothing of the sender. What is allocated is bounded by ``block_bytes_max``, whatever the body claims to expand to.
Raises :class:`Refusal`, which carries the HTTP status: 400 for what does not match, 413 for what is too large, 415 for an
encoding that is not spoken here.
"""

from __future__ import annotations

from zstandard import ZstdDecompressor, ZstdError, get_frame_parameters

from auditship.block import LINES_MAX, BlockError, BlockHeader, count_lines, digest


class Refusal(Exception):  # noqa: N818 - an answer, not a defect
    """The block is not taken: the HTTP status, and the reason for the agent's log."""

    def __init__(self, status: int, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


def check_size(header: BlockHeader, *, block_bytes_max: int) -> None:
    """Refuses a block by what its headers say, before a byte of the body is read."""
    if header.length > block_bytes_max:
        raise Refusal(413, f"a block of {header.length} bytes; this indexer takes at most {block_bytes_max}")
    if header.lines > LINES_MAX:
        raise Refusal(413, f"a block of {header.lines} lines; at most {LINES_MAX}")


def open_block(header: BlockHeader, encoding: str, body: bytes) -> bytes:
    """The block's uncompressed bytes, which match their header's length, digest and number of lines.

    Args:
        header: passed by :func:`check_size`.
        encoding: the request's ``Content-Encoding``; ``zstd``, or ``identity`` for people with curl.
        body: as received.

    Raises:
        Refusal: something does not match.
    """
    if encoding == "zstd":
        data = _expand(body, header.length)
    elif encoding in {"", "identity"}:
        data = body
    else:
        raise Refusal(415, f"Content-Encoding {encoding[:40]!r}: this indexer takes zstd")
    if len(data) != header.length:
        raise Refusal(400, f"Auditship-Length: said {header.length} bytes, came {len(data)}")
    if digest(data) != header.digest:
        raise Refusal(400, "Auditship-Digest: the bytes that came have another one")
    if not data.endswith(b"\n"):
        raise Refusal(400, "the body does not end with a newline")
    if (lines := count_lines(data)) != header.lines:
        raise Refusal(400, f"Auditship-Lines: said {header.lines}, came {lines}")
    return data


def _expand(body: bytes, length: int) -> bytes:
    """Decompresses one frame that says itself how long it is, and lies neither above nor below that."""
    try:
        frame = get_frame_parameters(body)
        if frame.content_size != length:
            raise Refusal(413 if frame.content_size > length else 400, "the zstd frame's content size is not Auditship-Length")
        return ZstdDecompressor().decompress(body, max_output_size=length, allow_extra_data=False)
    except ZstdError as error:
        raise Refusal(400, f"not one zstd frame: {error}") from None


__all__ = ["BlockError", "Refusal", "check_size", "open_block"]
