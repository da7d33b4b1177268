"""Nothing grows without a limit, and nobody holds up the others."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from product import Product
from receiver import Receiver
from shipping import append, arrived, lines, product_for, until
from support import DATA, compressed, header, memory_peak

from auditship.sample import Sample

MIB = 1 << 20


@pytest.fixture
def shipping(tmp_path: Path, receiver: Receiver) -> Iterator[Product]:
    with product_for(receiver, tmp_path) as product:
        yield product


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    with Product(
        tmp_path, store='request_timeout_s = 1.5\nin_flight_bytes_max = 1048576\n[store]\npath = "store"\n'
    ) as product:
        yield product


def test_a_line_that_never_ends_takes_no_memory(shipping: Product, receiver: Receiver) -> None:
    with (shipping.logs / "web.jsonl").open("wb") as file:
        for _ in range(256):
            file.write(b"x" * MIB)
    append(shipping.logs / "cli.jsonl", lines(0, 20))
    agent = shipping.start_agent()
    arrived(shipping, receiver, lines(0, 20))
    append(shipping.logs / "web.jsonl", [b"\n", *lines(100, 20)])
    until(lambda: set(lines(100, 20)) <= set(receiver.lines()), lambda: shipping.said("agent"))
    assert memory_peak(agent.pid) < 64 * MIB
    (cut,) = [header for header in receiver.seen if header.truncated_from]
    assert cut.truncated_from == 256 * MIB + 1


def test_thousands_of_files_are_watched_with_few_open(shipping: Product, receiver: Receiver) -> None:
    config = shipping.home / "agent.toml"
    config.write_text("open_files_max = 100\n" + config.read_text())
    for number in range(2000):
        append(shipping.logs / f"web-{number}.jsonl", lines(number, 1))
    agent = shipping.start_agent()
    arrived(shipping, receiver, lines(0, 2000))
    until(lambda: len(os.listdir(f"/proc/{agent.pid}/fd")) < 150, lambda: shipping.said("agent"))  # noqa: PTH208 - of another process
    for number in range(0, 2000, 100):
        append(shipping.logs / f"web-{number}.jsonl", lines(5000 + number, 1))
    arrived(
        shipping, receiver, [*lines(0, 2000), *(line for number in range(0, 2000, 100) for line in lines(5000 + number, 1))]
    )


def test_a_client_that_sends_slowly_is_cut_off_and_others_are_served_meanwhile(product: Product) -> None:
    product.start_indexer()
    head = header().to_headers() | {"Content-Encoding": "zstd", "Content-Length": "1000", "Host": "localhost"}
    with socket.create_connection(("127.0.0.1", product.port), 10) as slow:
        slow.sendall(
            b"POST /v1/blocks HTTP/1.1\r\n"
            + "".join(f"{name}: {value}\r\n" for name, value in head.items()).encode()
            + b"\r\nab"
        )
        http = urllib3.PoolManager()
        block = header().to_headers() | {"Content-Encoding": "zstd"}
        answer = http.request("POST", f"{product.url}/v1/blocks", headers=block, body=compressed(DATA), retries=False)
        assert answer.status == 200
        slow.settimeout(20)
        assert b" 408 " in slow.recv(200)


@pytest.mark.parametrize(("length", "count"), [(900_000, 1), (1_900, 1_900)], ids=["a long line", "short lines"])
def test_beyond_the_bytes_under_way_the_answer_is_wait(product: Product, length: int, count: int) -> None:
    product.start_indexer()
    head = header(length=length, lines=count).to_headers() | {
        "Content-Encoding": "zstd",
        "Content-Length": "1000",
        "Host": "localhost",
    }
    with socket.create_connection(("127.0.0.1", product.port), 10) as slow:
        slow.sendall(
            b"POST /v1/blocks HTTP/1.1\r\n"
            + "".join(f"{name}: {value}\r\n" for name, value in head.items()).encode()
            + b"\r\nab"
        )
        time.sleep(0.3)
        big = header(length=500_000, lines=1).to_headers() | {"Content-Encoding": "zstd"}
        answer = urllib3.PoolManager().request("POST", f"{product.url}/v1/blocks", headers=big, body=b"x" * 100, retries=False)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")


def test_a_store_whose_disk_is_full_acknowledges_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with Product(tmp_path) as product:

        def small_disk() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))

        written = list(Sample(1, numbered=True).lines("web", 4000))
        append(product.logs / "web.jsonl", written)
        indexer = product.start("indexer", "--config", "indexer.toml", preexec_fn=small_disk)
        until(lambda: "Uvicorn running" in product.said("indexer"), lambda: product.said("indexer"))
        agent = product.start_agent()
        until(lambda: "the store in" in product.said("agent"), lambda: (product.said("agent"), product.said("indexer")))
        assert indexer.poll() is None
        stored = len(product.export())
        assert stored < 4000
        product.stop(indexer)
        product.start_indexer()
        found = product.await_stored(4000)
        assert sorted(each["event"]["original"].encode() + b"\n" for each in found) == sorted(written)
        assert product.stop(agent) == 0


def test_a_bomb_is_refused_with_little_memory(product: Product) -> None:
    indexer = product.start_indexer()
    before = memory_peak(indexer.pid)
    program = (
        "import sys, zstandard, urllib3; sys.path[:0] = sys.argv[2:]\n"
        "from support import header\n"
        "size = 15 << 20\n"
        "body = zstandard.ZstdCompressor(level=19).compress(bytes(4 << 30 >> 2))\n"
        "head = header(length=size, lines=1).to_headers() | {'Content-Encoding': 'zstd'}\n"
        "print(urllib3.PoolManager().request('POST', sys.argv[1], headers=head, body=body, retries=False).status)\n"
    )
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program, f"{product.url}/v1/blocks", tests], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "413", done.stderr
    assert memory_peak(indexer.pid) - before < 32 * MIB
