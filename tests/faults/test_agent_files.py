"""Whatever happens to a watched file: every whole line arrives, in its stream's order, and what cannot be read is said."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from product import Product
from receiver import Receiver
from shipping import append, arrived, lines, product_for, until


@pytest.fixture
def product(tmp_path: Path, receiver: Receiver) -> Iterator[Product]:
    with product_for(receiver, tmp_path) as product:
        yield product


def test_a_renamed_file_is_read_to_its_end_and_its_successor_from_the_start(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    append(path, lines(0, 500))
    product.start_agent()
    written = lines(0, 500)
    arrived(product, receiver, written)
    for turn in range(1, 4):
        old = path.open("ab", buffering=0)
        path.rename(product.logs / f"rotated.{turn}")  # out of the glob
        stragglers = lines(turn * 1000, 50, "straggler")
        old.write(b"".join(stragglers))
        append(path, lines(turn * 1000 + 500, 300))
        old.close()
        written += stragglers + lines(turn * 1000 + 500, 300)
        arrived(product, receiver, written)
    assert len({header.stream for header in receiver.seen}) == 4
    assert "gap" not in product.said("agent")


def test_a_file_that_is_renamed_within_the_globs_stays_the_same_stream(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    append(path, lines(0, 100))
    product.start_agent()
    arrived(product, receiver, lines(0, 100))
    path.rename(product.logs / "web.jsonl.1")
    append(product.logs / "web.jsonl.1", lines(100, 100))
    arrived(product, receiver, lines(0, 200))
    assert len({header.stream for header in receiver.seen}) == 1


def test_a_file_that_is_truncated_becomes_a_new_stream(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    append(path, lines(0, 100))
    product.start_agent()
    arrived(product, receiver, lines(0, 100))
    os.truncate(path, 0)
    append(path, lines(0, 40))
    until(lambda: len(receiver.lines()) == 140, lambda: product.said("agent"))
    assert [header.offset for header in receiver.seen].count(0) == 2
    assert len({header.stream for header in receiver.seen}) == 2


def test_a_file_that_is_truncated_and_grows_past_the_old_place_is_noticed(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    first = [b'{"the same":"header in every file"}\n']
    append(path, first + lines(0, 50))
    product.start_agent()
    arrived(product, receiver, first + lines(0, 50))
    with path.open("r+b", buffering=0) as file:  # one moment to the agent: shorter, then longer than before
        os.ftruncate(file.fileno(), 0)
        file.write(b"".join(first + lines(5000, 200, "other")))
    wanted = first + lines(5000, 200, "other")
    until(lambda: len(receiver.lines()) >= 51 + len(wanted), lambda: product.said("agent"))
    assert set(wanted) <= set(receiver.lines())


def test_what_was_truncated_before_it_could_be_shipped_is_told_as_a_gap(product: Product, receiver: Receiver) -> None:
    receiver.decide = lambda header, data: (503, {"Retry-After": "1"}, b"{}") if header.offset else None
    path = product.logs / "web.jsonl"
    append(path, lines(0, 3000))
    product.start_agent()
    until(lambda: len(receiver.seen) > 2, lambda: product.said("agent"))
    os.truncate(path, 0)
    until(lambda: "gap in" in product.said("agent"), lambda: product.said("agent"))
    receiver.decide = lambda header, data: None
    append(path, lines(0, 10, "after"))
    until(lambda: set(lines(0, 10, "after")) <= set(receiver.lines()), lambda: product.said("agent"))
    until(lambda: any(event["action"] == "agent.gap" for event in receiver.events), lambda: receiver.events)
    gap = next(event for event in receiver.events if event["action"] == "agent.gap")
    assert gap["resource"]["name"].endswith("web.jsonl")
    assert gap["gap"]["bytes"] == gap["gap"]["end"] - gap["gap"]["start"] > 0
    assert gap["gap"]["end"] == sum(map(len, lines(0, 3000)))


def test_an_inode_that_is_used_again_with_the_same_first_line_is_a_new_stream(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    first = [b'{"the same":"header in every file"}\n']
    append(path, first + lines(0, 100))
    product.start_agent()
    arrived(product, receiver, first + lines(0, 100))
    path.unlink()
    until(lambda: "/web.jsonl (deleted)" not in " ".join(open_files(product)), lambda: product.said("agent"))
    append(path, first + lines(0, 60) + lines(900, 90))
    until(lambda: set(lines(900, 90)) <= set(receiver.lines()), lambda: product.said("agent"))
    assert len(receiver.lines()) == 101 + 151


def open_files(product: Product) -> list[str]:
    found = []
    for link in Path(f"/proc/{product.processes[-1].pid}/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return found


def test_a_deleted_file_is_read_to_its_end_and_its_unfinished_line_sent_as_such(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    append(path, lines(0, 10))
    product.start_agent()
    arrived(product, receiver, lines(0, 10))
    with path.open("ab", buffering=0) as file:
        path.unlink()
        file.write(b"".join(lines(10, 500)) + b'{"unfinished')
    arrived(product, receiver, [*lines(0, 510), b'{"unfinished\n'])
    assert [header.unterminated for header in receiver.seen].count(True) == 1


def test_a_line_without_its_newline_waits_for_it(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    append(path, [b'{"whole":1}\n', b'{"half":'])
    product.start_agent()
    arrived(product, receiver, [b'{"whole":1}\n'])
    append(path, [b"2}\n"])
    arrived(product, receiver, [b'{"whole":1}\n', b'{"half":2}\n'])
    assert len(receiver.taken) == 2


def test_a_file_without_a_first_line_is_shipped_as_soon_as_it_has_one(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    append(path, [b'{"begin'])
    product.start_agent()
    time.sleep(0.5)
    assert not receiver.seen
    append(path, [b'ning":1}\n'])
    arrived(product, receiver, [b'{"beginning":1}\n'])


def test_a_long_line_is_cut_with_its_true_length_and_its_neighbours_are_whole(product: Product, receiver: Receiver) -> None:
    huge = b'{"padding":"' + b"x" * 300_000 + b'"}\n'
    append(product.logs / "web.jsonl", [*lines(0, 30), huge, *lines(30, 30)])
    product.start_agent()
    until(lambda: len(receiver.lines()) == 61, lambda: product.said("agent"))
    cut = [(header, data) for header, data in receiver.taken if header.truncated_from is not None]
    assert [(header.truncated_from, len(data), data[:20]) for header, data in cut] == [(len(huge), 2048, huge[:20])]
    assert set(lines(0, 60)) <= set(receiver.lines())


def test_the_hole_that_a_stale_writer_leaves_is_passed_over(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    with path.open("wb", buffering=0) as file:  # not opened for append: goes on at its old place after a truncation
        file.write(b"".join(lines(0, 400)))
        product.start_agent()
        arrived(product, receiver, lines(0, 400))
        os.truncate(path, 0)
        file.write(b"".join(lines(400, 100)))
    until(lambda: set(lines(401, 99)) <= set(receiver.lines()), lambda: product.said("agent"))
    assert "NUL bytes" in product.said("agent")


def test_a_link_a_directory_and_a_pipe_among_the_files_harm_nothing(product: Product, receiver: Receiver) -> None:
    (product.home / "elsewhere.log").write_bytes(b"".join(lines(0, 20)))
    (product.logs / "web-link.jsonl").symlink_to(product.home / "elsewhere.log")
    (product.logs / "web-dangling.jsonl").symlink_to(product.home / "nowhere")
    (product.logs / "web-folder.jsonl").mkdir()
    os.mkfifo(product.logs / "web-pipe.jsonl")
    (product.logs / "web-empty.jsonl").touch()
    (product.logs / "web-old.jsonl.gz").write_bytes(b"\x1f\x8b compressed\n")
    (product.logs / "api-same.jsonl").symlink_to(product.home / "elsewhere.log")
    append(product.logs / "web.jsonl", lines(20, 20))
    product.start_agent()
    arrived(product, receiver, lines(0, 40))
    assert len({header.stream for header in receiver.seen}) == 2


def test_names_that_are_not_utf8_are_shipped_under_their_own_name(product: Product, receiver: Receiver) -> None:
    name = os.fsencode(product.logs) + b"/web-\xff\xfe\n.jsonl"
    with open(name, "wb") as file:  # noqa: PTH123 - a name in bytes
        file.write(b"".join(lines(0, 5)))
    product.start_agent()
    arrived(product, receiver, lines(0, 5))
    assert receiver.seen[0].path == b"logs/" + os.path.basename(name) or receiver.seen[0].path == name  # noqa: PTH119


def test_an_empty_file_that_is_rotated_away_is_read_as_long_as_its_writer_may_hold_it(
    product: Product, receiver: Receiver
) -> None:
    path = product.logs / "web.jsonl"
    append(path, lines(0, 1))
    quiet = product.logs / "web-quiet.jsonl"
    writer = quiet.open("ab", buffering=0)
    product.start_agent()
    arrived(product, receiver, lines(0, 1))
    quiet.rename(product.logs / "rotated.1")
    append(path, lines(1, 1))
    arrived(product, receiver, lines(0, 2))
    writer.write(b"".join(lines(10, 3)))
    writer.close()
    arrived(product, receiver, lines(0, 2) + lines(10, 3))
    assert "gap" not in product.said("agent")


def test_a_hole_of_many_gigabytes_is_one_gap(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    append(path, lines(0, 3))
    product.start_agent()
    arrived(product, receiver, lines(0, 3))
    with path.open("r+b", buffering=0) as file:
        file.seek(30 << 30)
        file.write(b"".join(lines(3, 3)))
    arrived(product, receiver, lines(0, 6))
    assert product.said("agent").count("gap in") == 1


def test_once_says_with_its_status_that_a_file_could_not_be_read(product: Product, receiver: Receiver) -> None:
    append(product.logs / "web.jsonl", lines(0, 3))
    (product.logs / "web-loop.jsonl").symlink_to("web-loop.jsonl")
    assert product.start("agent", "--config", "agent.toml", "--once").wait(60) == 1
    arrived(product, receiver, lines(0, 3))
    assert "web-loop.jsonl: Too many levels of symbolic links" in product.said("agent")


def test_a_stop_tells_no_gap_of_a_line_that_is_still_being_written(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    path.write_bytes(lines(0, 1)[0][:10])
    append(product.logs / "api.jsonl", lines(5, 1))
    agent = product.start_agent()
    arrived(product, receiver, lines(5, 1))
    agent.terminate()
    assert agent.wait(30) == 0
    append(path, [lines(0, 1)[0][10:]])
    product.ship()
    arrived(product, receiver, lines(5, 1) + lines(0, 1))
    assert "gap" not in product.said("agent")
    assert not any(event["action"] == "agent.gap" for event in receiver.events)
