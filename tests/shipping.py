"""What the tests of the agent's process share: a product that ships to a receiver, and lines to be shipped."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from product import Product
from receiver import Receiver

DEADLINE_S = 30.0


def product_for(receiver: Receiver, home: Path, agent: str = "") -> Product:
    """A product whose agent sends small blocks to a receiver."""
    product = Product(home, agent=f"block_bytes_max = 4096\nline_bytes_max = 2048\nrelease_after_s = 0.5\n{agent}")
    config = home / "agent.toml"
    config.write_text(config.read_text().replace(f":{product.port}", f":{receiver.port}"))
    return product


def lines(first: int, count: int, name: str = "x") -> list[bytes]:
    """Lines, no two of which are the same."""
    return [b'{"n":%d,"name":"%s","padding":"%s"}\n' % (n, name.encode(), b"p" * (n % 90)) for n in range(first, first + count)]


def append(path: Path, what: list[bytes]) -> None:
    """Appends lines with one write."""
    with path.open("ab", buffering=0) as file:
        file.write(b"".join(what))


def until(condition: Callable[[], bool], said: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Waits for a condition; ``said`` tells why it may not have come true."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.02)


def arrived(product: Product, receiver: Receiver, wanted: list[bytes]) -> None:
    """Waits until all of these lines are there, and asserts that no others are."""
    until(lambda: len(receiver.lines()) >= len(wanted), lambda: (len(receiver.lines()), len(wanted), product.said("agent")))
    assert sorted(receiver.lines()) == sorted(wanted)
