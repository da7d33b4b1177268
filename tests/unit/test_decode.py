"""Every line of a block becomes exactly one decoded line, whatever its bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import header

from indexer.decode import BOM, decode_block

GOOD = (
    b'{"timestamp":"2026-11-23T10:00:00Z","organization":{"id":"o"},"actor":{"type":"user","id":"u"},'
    b'"action":"project.update","resource":{"type":"project"},"status":"success"}'
)


def one(raw: bytes, **changes: object):  # noqa: ANN201
    (found,) = decode_block(header(raw + b"\n", **changes), raw + b"\n")
    return found


def test_offsets_are_those_of_the_stream() -> None:
    data = GOOD + b"\n" + b"{}\n" + b"\n" + GOOD + b"\n"
    found = list(decode_block(header(data, offset=1000), data))
    assert [each.offset for each in found] == [1000, 1000 + len(GOOD) + 1, 1000 + len(GOOD) + 4, 1000 + len(GOOD) + 5]
    assert [each.error is None for each in found] == [True, False, False, True]


@pytest.mark.parametrize(
    ("raw", "reason", "pointer"),
    [
        (b"", "blank", ""),
        (b"   \t", "blank", ""),
        (b"\0\0\0", "blank", ""),
        (b"hello", "not JSON", ""),
        (b"[1]", "not a JSON object but array", ""),
        (b"{}", "'timestamp' is missing", "/timestamp"),
        (GOOD[:-1], "not JSON", ""),
        (GOOD.replace(b'"u"', b'"\xff"'), "not UTF-8", ""),
        (GOOD.replace(b'"u"', b"7"), "Expected str, got int", "/actor/id"),
        (GOOD.replace(b'"user"', b'"robot"'), "Invalid enum value 'robot'", "/actor/type"),
        (GOOD.replace(b'"project"}', b'"project\0"}'), "not JSON", ""),
        (GOOD.replace(b"2026-11-23T10:00:00Z", b"yesterday"), "Invalid RFC3339", "/timestamp"),
        (GOOD.replace(b"2026-11-23T10:00:00Z", b"2026-11-23T10:00:00"), "timezone", "/timestamp"),
    ],
)
def test_a_line_that_is_no_event_tells_why_and_where(raw: bytes, reason: str, pointer: str) -> None:
    found = one(raw)
    assert found.line is None
    assert reason in found.error.reason
    assert found.error.pointer == pointer


@pytest.mark.parametrize(
    ("raw", "tags"),
    [
        (GOOD + b"\r", ("crlf",)),
        (b"\0" * 5000 + GOOD, ("nul_prefix",)),
        (BOM + GOOD, ("bom",)),
        (b"\0" + BOM + GOOD + b"\r", ("nul_prefix", "bom", "crlf")),
    ],
)
def test_what_surrounds_a_line_is_taken_off_and_noted(raw: bytes, tags: tuple[str, ...]) -> None:
    found = one(raw)
    assert (found.text, found.raw, found.tags) == (GOOD, raw, tags)
    assert found.line is not None


def test_a_byte_order_mark_within_a_file_is_no_event() -> None:
    assert one(BOM + GOOD, offset=17).line is None


def test_one_line_that_is_not_utf8_leaves_its_neighbours_alone() -> None:
    data = GOOD + b"\n\xff\xfe\n" + GOOD + b"\n"
    assert [each.line is not None for each in decode_block(header(data), data)] == [True, False, True]


def test_a_truncated_line_is_rejected_even_if_its_beginning_could_be_an_event() -> None:
    found = one(GOOD, truncated_from=10_000_000)
    assert "10000000 bytes" in found.error.reason


def test_a_last_line_without_newline_is_flagged() -> None:
    assert one(GOOD, unterminated=True).tags == ("unterminated",)


@given(st.binary(max_size=400), st.integers(min_value=0, max_value=2**62))
def test_any_bytes_decode_line_by_line(data: bytes, offset: int) -> None:
    block = data + b"\n"
    found = list(decode_block(header(block, offset=offset), block))
    assert b"".join(each.raw + b"\n" for each in found) == block
    assert [each.offset - offset for each in found] == [
        at for at in range(len(block)) if at == 0 or block[at - 1 : at] == b"\n"
    ]
    assert all((each.line is None) != (each.error is None) for each in found)
