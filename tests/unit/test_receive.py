"""A block is opened only if it is what its headers say, and never costs more memory than they claim."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from support import DATA, compressed, header

from auditship.block import LINES_MAX, digest
from indexer.receive import Refusal, check_size, open_block


def test_a_block_opens_to_the_very_bytes() -> None:
    assert open_block(header(), "zstd", compressed()) == DATA
    assert open_block(header(), "", DATA) == DATA


def without_size(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


@pytest.mark.parametrize(
    ("changes", "encoding", "body", "status", "words"),
    [
        ({"length": len(DATA) + 1}, "zstd", compressed(), 400, "content size"),
        ({"digest": digest(b"other")}, "zstd", compressed(), 400, "Digest"),
        ({"lines": 1}, "zstd", compressed(), 400, "Lines"),
        ({}, "zstd", compressed()[:-1], 400, "zstd frame"),
        ({}, "zstd", compressed() + b"x", 400, "zstd frame"),
        ({}, "zstd", compressed() + compressed(), 400, "zstd frame"),
        ({}, "zstd", b"", 400, "zstd frame"),
        ({}, "zstd", DATA, 400, "zstd frame"),
        ({}, "zstd", without_size(DATA), 413, "content size"),
        ({}, "gzip", compressed(), 415, "gzip"),
        ({}, "", DATA[:-1], 400, "Length"),
    ],
)
def test_what_does_not_match_is_refused(
    changes: dict[str, object], encoding: str, body: bytes, status: int, words: str
) -> None:
    with pytest.raises(Refusal, match=words) as refusal:
        open_block(header(**changes), encoding, body)
    assert refusal.value.status == status


def test_a_body_without_its_last_newline_is_refused() -> None:
    data = DATA + b"torn"
    with pytest.raises(Refusal, match="newline"):
        open_block(header(data), "zstd", compressed(data))


def test_a_block_over_the_limit_is_refused_by_its_headers_alone() -> None:
    check_size(header(), block_bytes_max=len(DATA))
    with pytest.raises(Refusal) as refusal:
        check_size(header(), block_bytes_max=len(DATA) - 1)
    assert refusal.value.status == 413
    check_size(header(length=1 << 20, lines=LINES_MAX), block_bytes_max=1 << 20)
    with pytest.raises(Refusal, match="lines") as refusal:
        check_size(header(length=1 << 20, lines=LINES_MAX + 1), block_bytes_max=1 << 20)
    assert refusal.value.status == 413


# The child may map 32 MiB more than it has when the body comes: less than the 64 MiB that the bomb expands to.
BOMB = """
import resource, zstandard
from support import header
from indexer.receive import Refusal, open_block
bomb = zstandard.compress(bytes(64 << 20))
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (32 << 20),) * 2)
try:
    bytes(64 << 20)
    print("the limit does not hold")
except MemoryError:
    pass
for length in (16, 1 << 20):
    try:
        open_block(header(length=length), "zstd", bomb)
    except Refusal as refusal:
        print(refusal.status)
"""


def test_a_decompression_bomb_is_refused_without_being_expanded() -> None:
    child = subprocess.run(
        [sys.executable, "-c", BOMB],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert child.stdout.split() == ["413", "413"], child.stderr
