"""Promises of the block's headers: they say what they mean both ways, and a wrong one is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import header

from auditship.block import (
    BlockError,
    BlockHeader,
    Receipt,
    chain_next,
    count_lines,
    digest,
    first_line_digest,
    gateway_name,
    stream_id,
)

hashes = st.binary(min_size=32, max_size=32)
headers = st.builds(
    BlockHeader,
    agent=st.from_regex(r"\A[A-Za-z0-9._-]{1,128}\Z"),
    host=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
    gateway=st.from_regex(r"\A[a-z][a-z0-9_]{0,49}\Z"),
    path=st.binary(min_size=1, max_size=200),
    stream=st.from_regex(r"\A[0-9a-f]{32}\Z"),
    offset=st.integers(0, 2**63 - 1),
    length=st.integers(5, 2**63 - 1),
    lines=st.integers(1, 5),
    digest=hashes,
    chain=hashes,
    created_ms=st.integers(0, 2**53),
    redelivered=st.booleans(),
    unterminated=st.booleans(),
)


class Names(dict[str, str]):
    """Looks names up without regard to case, as a server's headers do."""

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return next((value for key, value in self.items() if key.lower() == name.lower()), default)


@given(headers)
def test_headers_say_the_same_there_and_back(block: BlockHeader) -> None:
    said = block.to_headers()
    assert all(value.isascii() and value.isprintable() for value in said.values())
    assert BlockHeader.from_headers(Names({name.lower(): value for name, value in said.items()})) == block


@pytest.mark.parametrize("name", list(header().to_headers()))
@pytest.mark.parametrize("wrong", [None, "", "\0", "-1", "9" * 30, "ünï", "sha-256:xyz", "x" * 20_000])
def test_a_missing_or_wrong_header_is_named(name: str, wrong: str | None) -> None:
    said = header().to_headers()
    if wrong is None:
        del said[name]
    else:
        said[name] = wrong
    if wrong == "\0" and name in ("Auditship-Host", "Auditship-Path"):
        return  # a name of whatever bytes
    if wrong in ("-1", "9" * 30, "ünï", "sha-256:xyz") and name in ("Auditship-Agent", "Auditship-Host", "Auditship-Path"):
        return
    with pytest.raises(BlockError, match=name):
        BlockHeader.from_headers(Names(said))


def test_a_cut_line_stands_alone_in_its_block() -> None:
    with pytest.raises(BlockError, match="Auditship-Truncated"):
        BlockHeader.from_headers(Names(header(truncated_from=99).to_headers()))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"documents": 2},
        {"documents": 1, "duplicates": 0, "rejected": 0},
        {"documents": -1, "duplicates": 3, "rejected": 0},
        {"documents": True, "duplicates": 1, "rejected": 0},
    ],
)
def test_a_receipt_that_does_not_add_up_is_none(value: object) -> None:
    with pytest.raises(BlockError):
        Receipt.from_json(value, 2)


def test_each_part_of_an_identity_tells_streams_apart() -> None:
    base = ("gw-1", 1, 2, 3, first_line_digest(b"a\n"))
    others = [("gw-2", *base[1:]), ("gw-1", 9, 2, 3, base[4]), ("gw-1", 1, 9, 3, base[4]), ("gw-1", 1, 2, 9, base[4]),
              ("gw-1", 1, 2, 3, first_line_digest(b"b\n"))]  # fmt: skip
    assert len({stream_id(*each) for each in [base, *others]}) == 6  # type: ignore[arg-type]
    assert first_line_digest(b"x" * 4096 + b"1") == first_line_digest(b"x" * 4096 + b"2")


def test_the_chain_depends_on_every_block_before() -> None:
    assert chain_next(chain_next(bytes(32), digest(b"1")), digest(b"2")) != chain_next(
        chain_next(bytes(32), digest(b"2")), digest(b"1")
    )


@pytest.mark.parametrize("name", ["", "Web", "1web", "web-1", "w" * 51, "wéb", "web.cli"])
def test_a_gateway_s_name_is_fit_for_a_data_stream(name: str) -> None:
    with pytest.raises(ValueError, match="gateway's name"):
        gateway_name(name)


@given(st.binary(max_size=40) | st.just(b"\n"), st.integers(1, 20_000), st.integers(0, 200_000), st.integers(0, 200_000))
def test_lines_are_counted_wherever_a_part_of_the_count_ends(piece: bytes, times: int, start: int, size: int) -> None:
    data = bytearray(piece * times)
    start = min(start, len(data))
    end = min(start + size, len(data))
    assert count_lines(data, start, end) == data.count(b"\n", start, end)
    assert count_lines(bytes(data)) == data.count(b"\n")
