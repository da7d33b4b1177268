"""What the agent knows of files across restarts, and what holds when it knows nothing any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from product import Product
from receiver import Receiver
from shipping import append, arrived, lines, product_for, until

from auditship.sample import Sample


@pytest.fixture
def product(tmp_path: Path, receiver: Receiver) -> Iterator[Product]:
    with product_for(receiver, tmp_path) as product:
        yield product


def rewrite(path: Path, what: list[bytes]) -> None:
    """Gives a file, the same inode, another content."""
    with path.open("r+b", buffering=0) as file:
        file.truncate(0)
        file.write(b"".join(what))


@pytest.mark.parametrize("what", ["another first line", "the same first line", "shorter", "the same length"])
def test_a_file_that_became_another_while_the_agent_was_down_is_read_from_its_start(
    product: Product, receiver: Receiver, what: str
) -> None:
    path = product.logs / "web.jsonl"
    first = [b'{"the same":"header in every file"}\n']
    old = first + lines(0, 200)
    append(path, old)
    product.ship()
    assert sorted(receiver.lines()) == sorted(old)
    new = {
        "another first line": lines(1000, 300, "new"),
        "the same first line": first + lines(1000, 300, "new"),
        "shorter": first + lines(1000, 10, "new"),
        "the same length": [line.replace(b"x", b"y") for line in old],
    }[what]
    rewrite(path, new)
    product.ship()
    assert set(new) <= set(receiver.lines())
    assert len({header.stream for header in receiver.seen}) == 2
    assert "gap" in product.said("agent"), "what the old file may still have held is told"


def test_a_file_that_vanished_while_the_agent_was_down_is_told_with_what_is_missing(
    product: Product, receiver: Receiver
) -> None:
    path, whole = product.logs / "web.jsonl", product.logs / "cli.jsonl"
    append(path, lines(0, 2000))
    append(whole, lines(5000, 20))
    receiver.decide = lambda header, data: (503, {}, b"{}") if header.gateway == "web" and header.offset > 9000 else None
    agent = product.start_agent()
    until(lambda: len(receiver.lines()) > 100 and set(lines(5000, 20)) <= set(receiver.lines()), lambda: product.said("agent"))
    product.stop(agent)
    shipped = sum(len(data) for header, data in receiver.taken if header.gateway == "web")
    path.unlink()
    whole.unlink()
    receiver.decide = lambda header, data: None
    product.start_agent()
    until(lambda: any(event["action"] == "agent.gap" for event in receiver.events), lambda: product.said("agent"))
    (gap,) = [event for event in receiver.events if event["action"] == "agent.gap"]
    assert gap["gap"]["start"] <= shipped
    assert gap["gap"]["end"] == sum(map(len, lines(0, 2000)))
    assert "cli.jsonl: gone while nobody looked; all that was seen of it" in product.said("agent")


def test_a_half_written_line_across_a_restart_is_shipped_once(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    append(path, [*lines(0, 5), b'{"half":'])
    product.ship()
    append(path, [b'"done"}\n'])
    product.ship()
    assert sorted(receiver.lines()) == sorted([*lines(0, 5), b'{"half":"done"}\n'])


def test_an_agent_killed_at_any_moment_never_checkpoints_what_was_not_acknowledged(
    product: Product, receiver: Receiver
) -> None:
    receiver.decide = lambda header, data: (503, {}, b"{}") if len(receiver.taken) % 3 == 2 and not header.redelivered else None
    path = product.logs / "web.jsonl"
    written: list[bytes] = []
    for turn in range(6):
        agent = product.start_agent()
        written += lines(turn * 400, 400)
        append(path, lines(turn * 400, 400))
        enough = len(written) - 350
        until(lambda enough=enough: len(receiver.lines()) > enough, lambda: product.said("agent"))
        product.kill(agent)
    product.ship()
    assert sorted(receiver.lines()) == sorted(written)


def test_permission_lost_and_regained_loses_nothing(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    append(path, lines(0, 10))
    product.start_agent()
    arrived(product, receiver, lines(0, 10))
    path.chmod(0)
    append(product.logs / "cli.jsonl", lines(10, 10))
    arrived(product, receiver, lines(0, 20))
    path.chmod(0o600)
    append(path, lines(20, 10))
    arrived(product, receiver, lines(0, 30))


def test_links_that_are_swapped_as_kubernetes_does_lead_to_both_files(product: Product, receiver: Receiver) -> None:
    first, second = product.home / "0.log", product.home / "1.log"
    append(first, lines(0, 50))
    link = product.logs / "web.jsonl"
    link.symlink_to(first)
    product.start_agent()
    arrived(product, receiver, lines(0, 50))
    append(second, lines(50, 50))
    beside = product.logs / "beside"
    beside.symlink_to(second)
    append(first, lines(100, 20))
    beside.rename(link)
    arrived(product, receiver, lines(0, 120))


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Product]:
    home = tmp_path / "whole"
    home.mkdir()
    with Product(home, agent='agent_id = "gw-1"') as product:
        yield product


def test_an_agent_that_lost_its_state_hides_no_line_behind_an_older_one(whole: Product) -> None:
    path = whole.logs / "web.jsonl"
    header, *old = Sample(1, numbered=True).lines("web", 101)
    path.write_bytes(header + b"".join(old))
    whole.start_indexer()
    whole.ship()
    for file in (whole.home / "state").iterdir():
        file.unlink()
    new = [line.replace(b'"organization":{"id":"org', b'"organization":{"id":"xyz') for line in old]
    rewrite(path, [header, *new])  # the same agent, inode, generation, first line, places and times
    whole.ship()
    found = Counter(each["event"]["original"].encode() + b"\n" for each in whole.export())
    assert found == Counter([header, *old, *new])
