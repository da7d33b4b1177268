"""Promises of the agent's parts that need no process: durability, the checkpoint's file, the acknowledged prefix, the cut."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import osio
from agent.checkpoint import ENDED, LIVE, Checkpoint, Damaged, encode, forgotten, parse
from agent.frame import nul_run, whole_lines
from agent.identity import START, FirstLine, Identity, Mark
from agent.osio import System
from agent.stream import Stream
from auditship.block import CHAIN_START, LINES_MAX, first_line_digest
from auditship.errors import ConfigurationError

IDENTITY = Identity(1, 2, 3, FirstLine(first_line_digest(b"first\n"), 6))


def stream_at(offset: int, inode: int = 2) -> Stream:
    mark = Mark.after(offset, CHAIN_START, b"x" * min(offset, 1024))
    return Stream("gw-1", IDENTITY._replace(inode=inode), f"/logs/{inode}-\udcff.jsonl", "web", mark=mark)


@given(st.binary(max_size=300), st.integers(0, 20))
def test_whole_lines_are_all_up_to_the_last_newline(data: bytes, start: int) -> None:
    buffer = bytearray(b"#" * start + data + b"\n after the end")
    frame = whole_lines(buffer, start, start + len(data))
    assert bytes(buffer[start : frame.end]) == data[: data.rfind(b"\n") + 1]
    assert frame.lines == data.count(b"\n")


@pytest.mark.parametrize("line", [b"\n", b"x\n"])
def test_whole_lines_are_no_more_than_a_block_may_hold(line: bytes) -> None:
    long_line = b"x" * 100_000 + b"\n"
    buffer = bytearray(b"#" + long_line + line * LINES_MAX)
    assert whole_lines(buffer, 1, len(buffer)) == (len(buffer) - len(line), LINES_MAX)
    assert whole_lines(buffer, 1, len(buffer) - len(line)) == (len(buffer) - len(line), LINES_MAX)


@given(st.binary(max_size=50), st.integers(0, 50))
def test_a_run_of_nuls_is_counted(data: bytes, nuls: int) -> None:
    assert nul_run(b"\0" * nuls + b"x" + data) == nuls


@pytest.mark.parametrize(
    ("head", "length"), [(b"", None), (b"abc", None), (b"a\nb", 2), (b"x" * 4095, None), (b"x" * 4096, 4096)]
)
def test_a_first_line_counts_with_its_first_four_kibibytes(head: bytes, length: int | None) -> None:
    found = FirstLine.of(head)
    assert (found and found.length) == length


@given(st.randoms(use_true_random=False), st.integers(1, 30))
def test_the_acknowledged_prefix_never_passes_a_block_that_is_not_done(chance: random.Random, count: int) -> None:
    stream = stream_at(0)
    blocks = []
    for number in range(count):
        end = Mark.after((number + 1) * 10, CHAIN_START, b"y" * (number + 1) * 10)
        block = _block(stream, end)
        stream.advance(block)
        blocks.append(block)
    order = blocks[:]
    chance.shuffle(order)
    done: set[int] = set()
    for block in order:
        stream.acknowledge(block)
        done.add(block.end.offset)
        prefix = next((at for at in range(count) if (at + 1) * 10 not in done), count)
        assert stream.acknowledged.offset == prefix * 10
    assert not stream.outstanding


def _block(stream: Stream, end: Mark) -> Any:
    from agent.block import Block  # noqa: PLC0415

    return Block(stream, None, b"body", end)  # type: ignore[arg-type]


def records(*lines: bytes) -> bytearray:
    return bytearray().join(lines)


def test_a_checkpoint_says_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    streams = [stream_at(offset, inode) for inode, offset in enumerate((0, 7, 5000))]
    checkpoint = Checkpoint(System(), tmp_path)
    assert checkpoint.load() is None
    checkpoint.save(records(*(encode(stream, LIVE) for stream in streams)), 1234)
    loaded = checkpoint.load()
    assert loaded is not None
    assert (loaded.window_bytes, loaded.problem) == (1234, "")
    assert [record.mark for record in loaded.records] == [stream.acknowledged for stream in streams]
    assert [record.identity for record in loaded.records] == [stream.identity for stream in streams]
    assert [os.fsdecode(record.path) for record in loaded.records] == [stream.path for stream in streams]


def test_what_is_added_to_a_checkpoint_stands_in_place_of_what_was_there(tmp_path: Path) -> None:
    checkpoint = Checkpoint(System(), tmp_path)
    checkpoint.save(records(*(encode(stream_at(7, inode), LIVE) for inode in range(3))), 1234)
    checkpoint.add(records(encode(stream_at(99, 1), LIVE), forgotten(1, 2, 3)))
    checkpoint.add(records(encode(stream_at(500, 5), ENDED)))
    loaded = checkpoint.load()
    assert loaded is not None
    assert [(each.identity.inode, each.mark.offset, each.state) for each in loaded.records] == [
        (0, 7, LIVE),
        (1, 99, LIVE),
        (5, 500, ENDED),
    ]


class Gathering(System):
    """Writes nothing; remembers what would be in the file, and where its batches end."""

    def __init__(self) -> None:
        self.data = b""
        self.ends: list[int] = []

    def replace(self, path: Path, *parts: bytes | bytearray, keep: Path | None = None) -> None:
        del path, keep
        self.data = b"".join(parts)
        self.ends.append(len(self.data))

    def append(self, path: Path, data: bytes | bytearray) -> None:
        del path
        self.data += data
        self.ends.append(len(self.data))


def test_of_a_checkpoint_cut_anywhere_or_with_any_byte_changed_whole_batches_count_and_the_damage_is_told() -> None:
    system = Gathering()
    checkpoint = Checkpoint(system, Path())
    checkpoint.save(records(encode(stream_at(7), LIVE), encode(stream_at(5000, 9), LIVE)), 1234)
    checkpoint.add(records(encode(stream_at(900), LIVE)))
    checkpoint.add(records(encode(stream_at(2000), LIVE)))
    data, ends = system.data, system.ends
    expected = [parse(data[:end], "checkpoint").records for end in ends]
    assert [records[0].mark.offset for records in expected] == [7, 900, 2000]
    for at in range(len(data)):
        whole = sum(end <= at for end in ends)
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
            if not whole:
                with pytest.raises((Damaged, ConfigurationError)):
                    parse(damaged, "checkpoint")
                continue
            loaded = parse(damaged, "checkpoint")
            assert loaded.records == expected[whole - 1]
            assert loaded.problem or damaged in [data[:end] for end in ends]


class Recorded:
    """The ``os`` module, remembering in which order files were written, synced and renamed."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self._names: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, *more: int) -> int:
        file = os.open(path, flags, *more)
        self._names[file] = Path(path).name
        return file

    def write(self, file: int, data: memoryview) -> int:
        self.calls.append(("write", self._names[file]))
        return os.write(file, data[:10])  # a part of it, as the system may

    def fsync(self, file: int) -> None:
        self.calls.append(("sync", self._names[file]))
        os.fsync(file)


def test_a_small_file_is_replaced_so_that_a_crash_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded()
    monkeypatch.setattr(osio, "os", recorded)
    renamed: Callable[[Path, Path], Path] = Path.replace

    def replace(path: Path, target: Path) -> Path:
        recorded.calls.append(("rename", f"{path.name} to {target.name}"))
        return renamed(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    state = tmp_path / "state"
    state.mkdir()
    for content in (b"one" * 20, b"two" * 20):
        recorded.calls.clear()
        System().replace(state / "checkpoint", content, keep=state / "checkpoint.previous")
    assert (state / "checkpoint").read_bytes() == b"two" * 20
    assert (state / "checkpoint.previous").read_bytes() == b"one" * 20
    assert [call for call in recorded.calls if call[0] != "write"] == [
        ("sync", "checkpoint.new"),
        ("rename", "checkpoint to checkpoint.previous"),
        ("rename", "checkpoint.new to checkpoint"),
        ("sync", "state"),
    ]
    assert recorded.calls[0][0] == "write"


def test_a_new_stream_begins_at_zero() -> None:
    assert START.offset == START.tail_bytes == 0
    assert Stream("gw-1", IDENTITY, "/x", "web").durable is None
