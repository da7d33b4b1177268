"""kill -9 in mid-shipment: nothing lost, nothing doubled."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from product import Product

from auditship.sample import Sample

LINES = 24_000
WRITES = 120
KILLS = 4


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    # Small blocks, so that a shipment has many of them and a kill falls between two.
    with Product(tmp_path, agent="block_bytes_max = 65536\nline_bytes_max = 65536\n") as product:
        yield product


def lines_of(gateway: str, seed: int) -> list[bytes]:
    return list(Sample(seed, numbered=True).lines(gateway, LINES // 3))


def write(path: Path, lines: list[bytes]) -> None:
    """A gateway: appends its lines in many writes over some seconds."""
    size = len(lines) // WRITES + 1
    with path.open("ab", buffering=0) as file:
        for at in range(0, len(lines), size):
            file.write(b"".join(lines[at : at + size]))
            time.sleep(0.04)


@pytest.mark.parametrize("victim", ["agent", "indexer"])
def test_killed_in_mid_shipment_and_restarted(product: Product, victim: str) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    chance = random.Random(seed)
    all_lines = {gateway: lines_of(gateway, at) for at, gateway in enumerate(("web", "cli", "api"))}
    starts = {"agent": product.start_agent, "indexer": product.start_indexer}
    running = {"indexer": starts["indexer"](), "agent": starts["agent"]()}
    gateways = [
        threading.Thread(target=write, args=(product.logs / f"{gateway}.jsonl", lines)) for gateway, lines in all_lines.items()
    ]
    for gateway in gateways:
        gateway.start()
    killed_while_writing = 0
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.1, 0.6))
        killed_while_writing += any(gateway.is_alive() for gateway in gateways)
        product.kill(running[victim])
        running[victim] = starts[victim]()
    for gateway in gateways:
        gateway.join()
    assert killed_while_writing, "no kill fell into the shipment"
    documents = product.await_stored(LINES)
    written = Counter(line.rstrip(b"\n") for lines in all_lines.values() for line in lines)
    found = Counter(each["event"]["original"].encode() for each in documents)
    assert (found - written, written - found) == (Counter(), Counter())
    assert len({each["event"]["id"] for each in documents}) == LINES
    assert product.stop(running["agent"]) == 0
