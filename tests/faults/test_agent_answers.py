"""Whatever an indexer answers: nothing is skipped, nothing is stuck, and what may have been stored before is marked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from product import Product
from receiver import Receiver
from shipping import append, arrived, lines, product_for, until

from auditship.block import BlockHeader


@pytest.fixture
def product(tmp_path: Path, receiver: Receiver) -> Iterator[Product]:
    with product_for(receiver, tmp_path, "refused_interval_s = 0.2\nretry_interval_max_s = 0.5") as product:
        yield product


@pytest.mark.parametrize(
    "answer",
    [
        (503, {"Retry-After": "1"}, b'{"error":"the store cannot be reached"}'),
        (429, {}, b"{}"),
        (500, {}, b"not JSON"),
        (200, {}, b"<html>a proxy's own page</html>"),
        (200, {}, b'{"documents":0,"duplicates":0,"rejected":0}'),
        "reset",
    ],
)
def test_after_an_answer_that_leaves_doubt_a_block_comes_again_marked(
    product: Product, receiver: Receiver, answer: tuple[int, dict[str, str], bytes] | str
) -> None:
    failed: set[int] = set()

    def decide(header: BlockHeader, _: bytes) -> tuple[int, dict[str, str], bytes] | str | None:
        if header.offset in failed or len(failed) >= 3:
            return None
        failed.add(header.offset)
        return answer

    receiver.decide = decide
    append(product.logs / "web.jsonl", lines(0, 400))
    product.start_agent()
    arrived(product, receiver, lines(0, 400))
    assert {header.offset for header, _ in receiver.taken if header.redelivered} == failed
    by_offset: dict[int, set[bytes]] = {}
    for header in receiver.seen:
        by_offset.setdefault(header.offset, set()).add(header.chain)
    assert all(len(chains) == 1 for chains in by_offset.values()), "a redelivered block repeats its chain value"


def test_a_block_found_malformed_twice_halts_its_stream_alone(product: Product, receiver: Receiver) -> None:
    receiver.decide = lambda header, data: (400, {}, b'{"error":"digest"}') if header.gateway == "web" else None
    append(product.logs / "web.jsonl", lines(0, 100))
    append(product.logs / "api.jsonl", lines(100, 100))
    agent = product.start_agent()
    arrived(product, receiver, lines(100, 100))
    until(lambda: "halted" in product.said("agent"), lambda: product.said("agent"))
    append(product.logs / "api.jsonl", lines(200, 100))
    arrived(product, receiver, lines(100, 200))
    assert sum(header.gateway == "web" and header.offset == 0 for header in receiver.seen) == 2
    product.stop(agent)
    receiver.decide = lambda header, data: None
    product.ship()
    assert sorted(receiver.lines()) == sorted(lines(0, 300)), "a restart tries again"


def test_once_says_with_its_status_that_a_stream_was_halted(product: Product, receiver: Receiver) -> None:
    receiver.decide = lambda header, data: (400, {}, b"{}")
    append(product.logs / "web.jsonl", lines(0, 10))
    assert product.start("agent", "--config", "agent.toml", "--once").wait(30) == 1
    assert "not everything could be shipped" in product.said("agent")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_stream_waits_and_the_others_flow_on(product: Product, receiver: Receiver, status: int) -> None:
    refusal = (status, {}, b'{"error":"not for you"}')
    receiver.decide = lambda header, data: refusal if header.gateway == "web" else None
    append(product.logs / "web.jsonl", lines(0, 2000))
    append(product.logs / "cli.jsonl", lines(5000, 300))
    product.start_agent()
    arrived(product, receiver, lines(5000, 300))
    until(lambda: "not for you" in product.said("agent"), lambda: product.said("agent"))
    receiver.decide = lambda header, data: None
    arrived(product, receiver, lines(0, 2000) + lines(5000, 300))


def test_a_token_that_was_replaced_is_read_again(product: Product, receiver: Receiver) -> None:
    token = product.home / "token"
    token.write_text("old\n")
    token.chmod(0o600)
    config = product.home / "agent.toml"
    config.write_text(config.read_text().replace("[indexer]\n", '[indexer]\ntoken_file = "token"\n'))
    receiver.decide = lambda header, data: None if receiver.authorizations[-1] == "Bearer new" else (401, {}, b"{}")
    append(product.logs / "web.jsonl", lines(0, 10))
    product.start_agent()
    until(lambda: "Bearer old" in receiver.authorizations, lambda: product.said("agent"))
    token.write_text("new\n")
    arrived(product, receiver, lines(0, 10))
    assert "new" not in product.said("agent").replace("newline", "")
    assert "Bearer" not in product.said("agent")


def test_blocks_that_are_too_large_come_smaller_and_a_line_that_still_is_comes_cut(
    product: Product, receiver: Receiver
) -> None:
    receiver.decide = lambda header, data: (413, {}, b"{}") if header.length > 1500 else None
    long_line = b'{"padding":"' + b"x" * 1900 + b'"}\n'
    append(product.logs / "web.jsonl", [*lines(0, 100), long_line, *lines(100, 100)])
    product.start_agent()
    until(lambda: set(lines(0, 200)) <= set(receiver.lines()), lambda: product.said("agent"))
    assert [header.truncated_from for header, _ in receiver.taken if header.truncated_from] == [len(long_line)]


def test_an_indexer_that_is_not_there_is_waited_for(product: Product) -> None:
    append(product.logs / "web.jsonl", lines(0, 50))
    config = product.home / "agent.toml"
    with Receiver() as gone:
        port = gone.port
    config.write_text(
        "\n".join(f'urls = ["http://127.0.0.1:{port}"]' if "urls" in line else line for line in config.read_text().split("\n"))
    )
    agent = product.start_agent()
    until(lambda: "tried again until it works" in product.said("agent"), lambda: product.said("agent"))
    assert product.stop(agent) == 0, "it ends in order all the same"


def test_the_next_address_is_tried_when_one_cannot_be_reached(product: Product, receiver: Receiver) -> None:
    config = product.home / "agent.toml"
    config.write_text(config.read_text().replace('urls = ["', 'urls = ["http://127.0.0.1:9", "'))
    append(product.logs / "web.jsonl", lines(0, 50))
    product.start_agent()
    arrived(product, receiver, lines(0, 50))


def test_a_second_agent_on_the_same_state_is_refused(product: Product, receiver: Receiver) -> None:
    append(product.logs / "web.jsonl", lines(0, 5))
    product.start_agent()
    arrived(product, receiver, lines(0, 5))
    second = product.start("agent", "--config", "agent.toml")
    assert second.wait(30) == 2
    assert "another agent is running" in product.said("agent")


def test_a_restart_goes_on_behind_the_acknowledged_prefix(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    append(path, lines(0, 100))
    agent = product.start_agent()
    arrived(product, receiver, lines(0, 100))
    assert product.stop(agent) == 0
    before = len(receiver.taken)
    append(path, lines(100, 100))
    product.ship()
    assert sorted(receiver.lines()) == sorted(lines(0, 200))
    again = [header for header, _ in receiver.taken[before:]]
    assert min(header.offset for header in again) == sum(map(len, lines(0, 100)))
    assert all(header.redelivered for header in again), "what was in flight is not known after a restart"
    assert len({header.stream for header in receiver.seen}) == 1


@pytest.mark.parametrize("damage", ["torn", "altered", "gone", "both"])
def test_a_damaged_checkpoint_loses_nothing_and_all_that_may_have_been_sent_is_marked(
    product: Product, receiver: Receiver, damage: str
) -> None:
    path = product.logs / "web.jsonl"
    append(path, lines(0, 200))
    product.ship()
    append(path, lines(200, 100))
    product.ship()
    checkpoint = product.home / "state" / "checkpoint"
    data = checkpoint.read_bytes()
    if damage == "torn":
        checkpoint.write_bytes(data[: len(data) // 2])
    elif damage == "altered":
        checkpoint.write_bytes(data.replace(b'"offset":', b'"offset":1'))
    else:
        checkpoint.unlink()
    if damage == "both":
        checkpoint.with_name("checkpoint.previous").write_bytes(b"nonsense")
    before = len(receiver.taken)
    append(path, lines(300, 50))
    product.ship()
    assert sorted(receiver.lines()) == sorted(lines(0, 350))
    assert all(header.redelivered for header, _ in receiver.taken[before:])
    assert len({header.stream for header in receiver.seen}) == 1
    assert "checkpoint" in product.said("agent")


def test_a_checkpoint_of_an_unknown_version_is_refused_and_left_as_it_is(product: Product) -> None:
    state = product.home / "state"
    state.mkdir()
    (state / "agent-id").write_text("gw-1\n")
    (state / "checkpoint").write_text(json.dumps({"auditship_checkpoint": 99, "window_bytes": 1}) + "\n")
    assert product.start("agent", "--config", "agent.toml").wait(30) == 2
    assert "version 99" in product.said("agent")
    assert "99" in (state / "checkpoint").read_text()


def test_a_state_directory_that_takes_nothing_more_stops_no_line(product: Product, receiver: Receiver) -> None:
    path = product.logs / "web.jsonl"
    append(path, lines(0, 20))
    product.start_agent()
    arrived(product, receiver, lines(0, 20))
    checkpoint = product.home / "state" / "checkpoint"
    checkpoint.unlink()
    checkpoint.mkdir()  # nothing can be added to it, and nothing be put in its place
    append(path, lines(20, 20))
    arrived(product, receiver, lines(0, 40))
    until(lambda: "checkpoint:" in product.said("agent"), lambda: product.said("agent"))
    checkpoint.rmdir()
    until(lambda: "checkpoint: works again" in product.said("agent"), lambda: product.said("agent"))
