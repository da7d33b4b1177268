"""Identity: the ``_id`` of a document. The same line of the same stream always has the same, whoever makes it. Pure.

16 bytes, written as 22 characters of base64url: the event's time in milliseconds (6 bytes, big endian, clamped to what fits;
zero for a rejected line), then BLAKE2b-80 over the stream id (16 bytes), the offset (8 bytes, big endian) and the SHA-256 of
the line's bytes as they stood in the block, without the newline (``event.hash``, where nothing was taken off or hidden). No
field of the event has a say in it but its time.
"""

from __future__ import annotations

import base64
import hashlib
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

_TIME_MAX: Final = 2**48 - 1
_BASE64URL: Final = bytes.maketrans(b"+/", b"-_")


def document_id(time_ms: int, stream: bytes, offset: int, raw: bytes) -> str:
    """Of one line: 22 characters.

    Args:
        time_ms: the event's time, epoch milliseconds.
        stream: the 16 bytes that name it.
        offset: where the line begins in it.
        raw: the line as it stood there, without its newline.
    """
    return document_ids([time_ms], hasher(stream), [offset], [sha256(raw).digest()])[0]


def hasher(stream: bytes) -> hashlib.blake2b:
    """What the ids of a stream's lines begin with."""
    return hashlib.blake2b(stream, digest_size=10)


def document_ids(times: Sequence[int], begun: hashlib.blake2b, offsets: Sequence[int], digests: Sequence[bytes]) -> list[str]:
    """Of some lines of one stream, for less; ``begun`` is its :func:`hasher`, ``digests`` the lines' SHA-256."""
    if min(times) < 0 or max(times) > _TIME_MAX:
        times = [min(max(time_ms, 0), _TIME_MAX) for time_ms in times]
    parts: list[bytes] = []
    for time_ms, offset, digest in zip(times, offsets, digests, strict=True):
        each = begun.copy()
        each.update(offset.to_bytes(8, "big") + digest)
        parts += time_ms.to_bytes(6, "big"), each.digest(), b"\0\0"
    text = b2a_base64(b"".join(parts)).translate(_BASE64URL).decode()
    return [text[at : at + 22] for at in range(0, 24 * len(times), 24)]  # of the zeros remain two characters


def packed_ids(texts: Iterable[str]) -> list[bytes]:
    """The 16 bytes of each id."""
    packed = base64.urlsafe_b64decode("".join([text + "AA" for text in texts]))  # two zeros more make whole bytes of each
    return [packed[at : at + 16] for at in range(0, len(packed), 18)]


def shown_id(packed: bytes) -> str:
    """An id as it is written."""
    return base64.urlsafe_b64encode(packed)[:22].decode()
