"""The block: consecutive whole lines of one stream, as the agent sends them and the indexer takes them.

Format, version 1. ``POST /v1/blocks``; the body is the lines' own bytes, each ending in a newline, zstd-compressed as one
frame with its content size. Everything else is in the headers:

=========================  ==============================================================================================
``Auditship-Version``      ``1``; an indexer refuses versions that it does not know
``Auditship-Agent``        the agent's id: 1 to 128 characters of ``A-Z a-z 0-9 . _ -``
``Auditship-Host``         the host's name, percent-encoded UTF-8
``Auditship-Gateway``      the gateway's name: ``a-z 0-9 _``, at most 50 characters, beginning with a letter
``Auditship-Path``         the file's path, percent-encoded (surrogate-escaped bytes of the file system as they are)
``Auditship-Stream``       the stream id, 32 hexadecimal digits
``Auditship-Offset``       the stream position of the first byte
``Auditship-Length``       uncompressed bytes of the body
``Auditship-Lines``        how many lines: at most 32,768, whatever their length
``Auditship-Digest``       ``sha-256:`` and the hexadecimal digest of the uncompressed bytes
``Auditship-Chain``        ``sha-256:`` and the digest of (chain value before, digest): see :func:`chain_next`
``Auditship-Created``      when the agent read the bytes, epoch milliseconds
``Auditship-Redelivered``  ``1`` if an earlier attempt's outcome is unknown; absent otherwise
``Auditship-Truncated``    only on a block of one line that was longer than the agent may send: the line's true length in
                           bytes, newline included; the body holds its beginning and a newline
``Auditship-Unterminated`` ``1`` only on a block whose last line had no newline when its file was deleted; the body's last
                           newline is the agent's
=========================  ==============================================================================================

A line costs an indexer more than its bytes, so a block is limited in both: one of more lines than that, or of more bytes than
the indexer is configured to take, is answered with 413.

The answer to a block that was taken is 200 with a receipt, :class:`Receipt`, as JSON. Any other answer means that the
lines are still the agent's.

Assumes nothing of the sender: every header is checked here. A header that is missing or wrong raises :class:`BlockError`,
which names it.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

VERSION: Final = 1
PATH: Final = "/v1/blocks"
DIGEST_NAME: Final = "sha-256:"
CHAIN_START: Final = bytes(32)
"""The chain value before a stream's first block."""

LINES_MAX: Final = 32_768
"""In a block. Of events, which have 200 bytes and more, they are more than the 2 MiB that agents send at once."""
POSITION_MAX: Final = 2**63 - 1

_AGENT = re.compile(r"[A-Za-z0-9._-]{1,128}")
_GATEWAY = re.compile(r"[a-z][a-z0-9_]{0,49}")
_STREAM = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"sha-256:[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,19}")
_TEXT_MAX: Final = 12_288
_STEP_BYTES: Final = 64 * 1024

RESERVED_GATEWAYS: Final = frozenset({"rejected", "alert", "agent", "access"})
"""Data streams of these names hold what auditship itself has to say; no watched path may claim one."""
_INDEXER_S_OWN: Final = frozenset({"rejected", "alert", "access"})
"""Those of them that no agent may send to."""


class BlockError(ValueError):
    """A header that is missing or wrong; the text names it."""


def stream_id(agent: str, device: int, inode: int, generation: int, first_line_hash: bytes) -> str:
    """The identity of one file's life: BLAKE2b-128 over its parts, each of a fixed length or ended by a NUL.

    ``first_line_hash`` is :func:`first_line_digest` of the file's first line.
    """
    parts = agent.encode() + b"\0" + struct.pack("<QQQ", device, inode, generation) + first_line_hash
    return hashlib.blake2b(parts, digest_size=16, person=b"auditship-stream").hexdigest()


FIRST_LINE_BYTES_MAX: Final = 4096


def first_line_digest(line: bytes | memoryview) -> bytes:
    """BLAKE2b-128 of a first line (newline included), of which the first 4 KiB count."""
    return hashlib.blake2b(line[:FIRST_LINE_BYTES_MAX], digest_size=16, person=b"auditship-line1").digest()


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """SHA-256 of a block's uncompressed bytes: 32 bytes."""
    return hashlib.sha256(data).digest()


def count_lines(data: bytes | bytearray, start: int = 0, end: int | None = None) -> int:
    """How many newlines there are in ``data[start:end]``.

    ``count`` would look at every byte; what replaces has the C library look for them, a part at a time that caches can hold.
    """
    steps = range(start, len(data) if end is None else end, _STEP_BYTES)
    found = 0
    for at in steps:
        part = data[at : min(at + _STEP_BYTES, steps.stop)]
        found += len(part) - len(part.replace(b"\n", b""))
    return found


def chain_next(before: bytes, block_digest: bytes) -> bytes:
    """The chain value after a block: SHA-256 over the value before it and the block's digest. 32 bytes."""
    return hashlib.sha256(before + block_digest).digest()


def gateway_name(name: str) -> str:
    """``name`` if a gateway may be called so.

    Raises:
        ValueError: saying what a name looks like.
    """
    if not _GATEWAY.fullmatch(name):
        raise ValueError(f"a gateway's name is 1 to 50 of a-z, 0-9 and _, beginning with a letter; got {name[:80]!r}")
    return name


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """What the headers of a block say, checked. Sizes and positions are bytes, times epoch milliseconds."""

    agent: str
    host: str
    gateway: str
    path: bytes
    stream: str
    offset: int
    length: int
    lines: int
    digest: bytes
    chain: bytes
    created_ms: int
    redelivered: bool = False
    truncated_from: int | None = None
    unterminated: bool = False

    @property
    def span(self) -> int:
        """How many bytes of the stream the block stands for."""
        if self.truncated_from is not None:
            return self.truncated_from
        return self.length - self.unterminated

    def to_headers(self) -> dict[str, str]:
        """The HTTP headers that say this."""
        headers = {
            "Auditship-Version": str(VERSION),
            "Auditship-Agent": self.agent,
            "Auditship-Host": quote_from_bytes(self.host.encode("utf-8", "surrogateescape")),
            "Auditship-Gateway": self.gateway,
            "Auditship-Path": quote_from_bytes(self.path),
            "Auditship-Stream": self.stream,
            "Auditship-Offset": str(self.offset),
            "Auditship-Length": str(self.length),
            "Auditship-Lines": str(self.lines),
            "Auditship-Digest": DIGEST_NAME + self.digest.hex(),
            "Auditship-Chain": DIGEST_NAME + self.chain.hex(),
            "Auditship-Created": str(self.created_ms),
        }
        if self.redelivered:
            headers["Auditship-Redelivered"] = "1"
        if self.truncated_from is not None:
            headers["Auditship-Truncated"] = str(self.truncated_from)
        if self.unterminated:
            headers["Auditship-Unterminated"] = "1"
        return headers

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> BlockHeader:
        """Reads and checks the headers; the mapping looks names up without regard to case.

        Raises:
            BlockError: a header is missing or wrong.
        """
        if (version := headers.get("Auditship-Version")) != str(VERSION):
            raise BlockError(f"Auditship-Version: this indexer takes {VERSION}, got {_shown(version)}")
        truncated = headers.get("Auditship-Truncated")
        header = cls(
            agent=_matched(headers, "Auditship-Agent", _AGENT),
            host=_text(headers, "Auditship-Host").decode("utf-8", "replace"),
            gateway=_matched(headers, "Auditship-Gateway", _GATEWAY),
            path=_text(headers, "Auditship-Path"),
            stream=_matched(headers, "Auditship-Stream", _STREAM),
            offset=_number(headers, "Auditship-Offset"),
            length=_number(headers, "Auditship-Length"),
            lines=_number(headers, "Auditship-Lines"),
            digest=bytes.fromhex(_matched(headers, "Auditship-Digest", _DIGEST)[len(DIGEST_NAME) :]),
            chain=bytes.fromhex(_matched(headers, "Auditship-Chain", _DIGEST)[len(DIGEST_NAME) :]),
            created_ms=_number(headers, "Auditship-Created"),
            redelivered=_flag(headers, "Auditship-Redelivered"),
            truncated_from=None if truncated is None else _number(headers, "Auditship-Truncated"),
            unterminated=_flag(headers, "Auditship-Unterminated"),
        )
        if header.gateway in _INDEXER_S_OWN:
            raise BlockError(f"Auditship-Gateway: {header.gateway!r} is the indexer's own")
        if header.truncated_from is not None and header.lines != 1:
            raise BlockError(f"Auditship-Truncated: stands on a block of one line only, got {header.lines} lines")
        if not 1 <= header.lines <= header.length:
            raise BlockError(f"Auditship-Lines: 1 to Auditship-Length ({header.length}), got {header.lines}")
        return header


def _shown(value: str | None) -> str:
    return "none" if value is None else repr(value[:80])


def _matched(headers: Mapping[str, str], name: str, pattern: re.Pattern[str]) -> str:
    value = headers.get(name)
    if value is None or not pattern.fullmatch(value):
        raise BlockError(f"{name}: expected {pattern.pattern}, got {_shown(value)}")
    return value


def _number(headers: Mapping[str, str], name: str) -> int:
    number = int(_matched(headers, name, _NUMBER))
    if number > POSITION_MAX:
        raise BlockError(f"{name}: at most {POSITION_MAX}, got {number}")
    return number


def _text(headers: Mapping[str, str], name: str) -> bytes:
    value = headers.get(name)
    if value is None or not 1 <= len(value) <= _TEXT_MAX:
        raise BlockError(f"{name}: expected 1 to {_TEXT_MAX} percent-encoded characters, got {_shown(value)}")
    return unquote_to_bytes(value)


def _flag(headers: Mapping[str, str], name: str) -> bool:
    value = headers.get(name)
    if value not in (None, "1"):
        raise BlockError(f"{name}: expected 1 or nothing, got {_shown(value)}")
    return value is not None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The indexer's answer to a block: every line is durably stored as one of these.

    JSON: ``{"documents": 3, "duplicates": 0, "rejected": 1}``; the three add up to the block's lines.
    """

    documents: int
    duplicates: int
    rejected: int

    @classmethod
    def from_json(cls, value: object, lines: int) -> Receipt:
        """Checks a decoded receipt against the number of lines it should speak of.

        Raises:
            BlockError: it is not a receipt, or does not add up. Such an answer is no acknowledgement.
        """
        if isinstance(value, dict):
            found = [value.get(name) for name in ("documents", "duplicates", "rejected")]
            counts = [count for count in found if type(count) is int and count >= 0]
            if len(counts) == len(found) and sum(counts) == lines:
                return cls(*counts)
        raise BlockError(f"not a receipt for {lines} lines: {str(value)[:200]}")
