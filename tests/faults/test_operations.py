"""What an operator does to running programs: reloads them, replaces certificates and tokens, asks how they are."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from product import Product, free_port
from receiver import Receiver
from shipping import append, arrived, lines, product_for, until
from support import header

from auditship.sample import Sample

REPLACED_S = 90.0
"""A supervisor may have asked a worker for a sign of life as it died, and waits 30 s for the answer, for each."""


@pytest.fixture
def shipping(tmp_path: Path, receiver: Receiver) -> Iterator[Product]:
    with product_for(receiver, tmp_path) as product:
        yield product


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    with Product(tmp_path) as product:
        yield product


def hang_up(process: subprocess.Popen[bytes]) -> None:
    """Asks a program to read its configuration again."""
    os.kill(process.pid, signal.SIGHUP)


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_agent_takes_new_files_at_a_reload_and_keeps_what_it_knows(shipping: Product, receiver: Receiver) -> None:
    append(shipping.logs / "web.jsonl", lines(0, 20))
    agent = shipping.start_agent()
    arrived(shipping, receiver, lines(0, 20))
    append(shipping.logs / "jobs.log", lines(100, 20))
    with (shipping.home / "agent.toml").open("a") as config:
        config.write('[[watch]]\ngateway = "jobs"\npaths = ["logs/jobs.log"]\n')
    hang_up(agent)
    arrived(shipping, receiver, lines(0, 20) + lines(100, 20))
    append(shipping.logs / "web.jsonl", lines(20, 20))
    arrived(shipping, receiver, lines(0, 40) + lines(100, 20))
    assert {header.gateway for header in receiver.seen} == {"web", "jobs"}
    assert len({header.stream for header in receiver.seen}) == 2


def test_a_gateway_that_has_another_name_after_a_reload_has_it_for_files_that_are_known(
    shipping: Product, receiver: Receiver
) -> None:
    append(shipping.logs / "web.jsonl", lines(0, 20))
    agent = shipping.start_agent()
    arrived(shipping, receiver, lines(0, 20))
    replace_in(shipping.home / "agent.toml", 'gateway = "web"', 'gateway = "console"')
    hang_up(agent)
    until(lambda: "reloaded" in shipping.said("agent"), lambda: shipping.said("agent"))

    def is_taken() -> bool:
        append(shipping.logs / "web.jsonl", lines(20, 1))
        return receiver.seen[-1].gateway == "console"

    until(is_taken, lambda: shipping.said("agent"))
    assert len({header.stream for header in receiver.seen}) == 1


def test_a_bad_configuration_is_told_at_a_reload_and_the_old_one_kept(shipping: Product, receiver: Receiver) -> None:
    agent = shipping.start_agent()
    append(shipping.logs / "web.jsonl", lines(0, 20))
    arrived(shipping, receiver, lines(0, 20))
    config = shipping.home / "agent.toml"
    config.write_text("scan_intervall_s = 1\n" + config.read_text())
    hang_up(agent)
    until(lambda: "not reloaded" in shipping.said("agent"), lambda: shipping.said("agent"))
    assert "unknown key 'scan_intervall_s'" in shipping.said("agent")
    append(shipping.logs / "web.jsonl", lines(20, 20))
    arrived(shipping, receiver, lines(0, 40))
    assert agent.poll() is None


def test_what_a_reload_cannot_change_is_told(shipping: Product, receiver: Receiver) -> None:
    agent = shipping.start_agent()
    append(shipping.logs / "web.jsonl", lines(0, 20))
    arrived(shipping, receiver, lines(0, 20))
    replace_in(shipping.home / "agent.toml", 'state_dir = "state"', 'state_dir = "elsewhere"')
    hang_up(agent)
    until(lambda: "state_dir: changed" in shipping.said("agent"), lambda: shipping.said("agent"))
    assert not (shipping.home / "elsewhere").exists()


def test_a_token_that_was_replaced_is_used_without_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    product = Product(tmp_path, agent="refused_interval_s = 0.2")
    config = product.home / "agent.toml"
    token = tmp_path / "token"
    token.write_text("the first")
    token.chmod(0o600)
    replace_in(config, f":{product.port}", f":{receiver.port}")
    replace_in(config, "[indexer]\n", '[indexer]\ntoken_file = "token"\n')
    with product:
        product.start_agent()
        append(product.logs / "web.jsonl", lines(0, 20))
        arrived(product, receiver, lines(0, 20))
        receiver.decide = lambda *_: None if receiver.authorizations[-1] == "Bearer the second" else (401, {}, b"{}")
        append(product.logs / "web.jsonl", lines(20, 20))
        until(lambda: "401" in product.said("agent"), lambda: product.said("agent"))
        token.write_text("the second")
        arrived(product, receiver, lines(0, 40))


def metrics(url: str) -> dict[str, float]:
    """What Prometheus would read."""
    answer = urllib3.PoolManager().request("GET", f"{url}/metrics", retries=False)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = re.findall(r"^([a-z_]+(?:\{[^}]*\})?) ([0-9.e+-]+)$", answer.data.decode(), re.MULTILINE)
    return {name: float(value) for name, value in found}


@pytest.mark.parametrize("workers", [1, 2])
def test_both_sides_tell_prometheus_what_became_of_lines(tmp_path: Path, workers: int) -> None:
    port = free_port()
    with Product(tmp_path, agent=f'metrics_listen = "127.0.0.1:{port}"') as product:
        product.start_indexer("--workers", str(workers))
        agent = product.start_agent()
        until(lambda: is_listening(port), lambda: product.said("agent"))
        append(product.logs / "web.jsonl", [*Sample(1).lines("web", 50), b"no event\n"])
        append(product.logs / "cli.jsonl", list(Sample(2).lines("cli", 50)))
        product.await_stored(100)
        until(lambda: metrics(f"http://127.0.0.1:{port}")["auditship_agent_rejected_total"] == 1, lambda: product.said("agent"))
        told = metrics(f"http://127.0.0.1:{port}")
        assert told['auditship_agent_streams{gateway="web"}'] == 1
        assert told['auditship_agent_lag_bytes{gateway="web"}'] == 0
        assert told["auditship_agent_documents_total"] >= 100
        answers = [metrics(product.url) for _ in range(5)]  # whichever worker is asked
        for told in answers:
            assert told['auditship_indexer_lines_total{outcome="rejected"}'] == 1
            assert told['auditship_indexer_lines_total{outcome="created"}'] >= 100
            assert told['auditship_indexer_blocks_total{answer="200"}'] == told["auditship_indexer_block_seconds_count"] >= 2
            assert told["auditship_indexer_in_flight_bytes"] == 0
        http = urllib3.PoolManager()
        for url in (product.url, f"http://127.0.0.1:{port}"):
            assert http.request("GET", f"{url}/healthz").status == http.request("GET", f"{url}/readyz").status == 200
        assert product.stop(agent) == 0


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_an_indexer_reloads_under_load_without_refusing_a_connection(product: Product, workers: int) -> None:
    config = product.home / "indexer.toml"
    config.write_text(f"workers = {workers}\n{config.read_text()}")
    indexer = product.start_indexer()
    rules = product.home / "rules.toml"
    written: list[bytes] = []
    product.start_agent()
    sample = Sample(3, numbered=True)

    def write(count: int) -> None:
        more = list(sample.lines("web", count))
        written.extend(more)
        append(product.logs / "web.jsonl", more)

    write(500)
    product.await_stored(500)
    rules.write_text("nonsense = [")
    config.write_text(config.read_text() + '[enrichment]\nseverity_rules = "rules.toml"\n')
    hang_up(indexer)
    until(lambda: "not reloaded" in product.said("indexer"), lambda: product.said("indexer"))
    write(100)
    product.await_stored(600)
    rules.write_text('[[rule]]\naction = ["*"]\nseverity = "critical"\nreason = "by the new rules"\n')
    hang_up(indexer)
    deadline = time.monotonic() + 60
    while not product.export('event.reason:"by the new rules"'):
        assert time.monotonic() < deadline, product.said("indexer")
        write(50)
        with socket.create_connection(("127.0.0.1", product.port), 10):
            time.sleep(0.1)
    found = product.await_stored(len(written))
    assert sorted(each["event"]["original"].encode() + b"\n" for each in found) == sorted(written)
    assert indexer.poll() is None


def test_a_program_that_begins_is_not_ended_by_a_hang_up(product: Product) -> None:
    indexer = product.start("indexer", "--config", "indexer.toml")
    until(lambda: "SigBlk:\t0000000000000001" in Path(f"/proc/{indexer.pid}/status").read_text(), indexer.poll)
    hang_up(indexer)
    until(lambda: "reloading" in product.said("indexer"), lambda: product.said("indexer"))
    until(lambda: is_listening(product.port), lambda: product.said("indexer"))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_cannot_be_used_is_not_taken_at_a_reload(product: Product, tmp_path: Path, workers: int) -> None:
    config = product.home / "indexer.toml"
    good = f"workers = {workers}\n{config.read_text()}"
    config.write_text(good)
    indexer = product.start_indexer()
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        for bad, told in (
            ('certificate_file = "no.pem"\ncertificate_key_file = "no.key"\n' + good, "no.pem: No such file"),
            ('certificate_file = "file"\ncertificate_key_file = "file"\n' + good, "should be a certificate and its key"),
            (good.replace("[store]", '[store]\nkind = "elasticsearch"\n') + ES_KEYS, "no.key: No such file"),
            (good.replace('"store"', '"file/store"'), "store.path"),
            (good.replace(f"127.0.0.1:{product.port}", taken), f"listen: {taken}: Address already in use"),
        ):
            config.write_text(bad)
            before = product.said("indexer").count("not reloaded")
            hang_up(indexer)
            until(lambda before=before: product.said("indexer").count("not reloaded") > before, lambda: product.said("indexer"))  # type: ignore[misc]
            assert told in product.said("indexer").rpartition("not reloaded")[2]
            if "listen" not in told:
                command = [sys.executable, "-m", "auditship.cli", "indexer", "--config", "indexer.toml", "--check"]
                done = subprocess.run(command, cwd=product.home, capture_output=True, text=True, check=False, timeout=60)
                assert done.returncode == 2
                assert told in done.stderr
    assert urllib3.PoolManager().request("GET", f"{product.url}/readyz").status == 200
    assert indexer.poll() is None


ES_KEYS = '[elasticsearch]\nwriter_key_file = "no.key"\nreader_key_file = "no.key"\n'


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """The workers of an indexer (the first of its children keeps account of what they share)."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = []
    for pid in found:
        with contextlib.suppress(OSError):  # it has ended since
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                workers.append(int(pid))
    return workers


def test_what_workers_share_is_taken_at_a_reload_too(product: Product) -> None:
    config = product.home / "indexer.toml"
    config.write_text(f"workers = 2\n{config.read_text()}")
    indexer = product.start_indexer()
    replace_in(config, "workers = 2", "workers = 3")
    hang_up(indexer)
    while len(children(indexer)) != 3:
        with socket.create_connection(("127.0.0.1", product.port), 10):
            time.sleep(0.01)
    before, product.port = product.port, free_port()
    replace_in(config, f":{before}", f":{product.port}")
    replace_in(config, "workers = 3", "workers = 1")
    hang_up(indexer)
    until(lambda: is_listening(product.port), lambda: product.said("indexer"))
    assert urllib3.PoolManager().request("GET", f"http://127.0.0.1:{product.port}/readyz").status == 200
    assert not is_listening(before)
    assert children(indexer) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_indexer_that_is_to_begin_again_and_to_end_ends(product: Product, number: signal.Signals) -> None:
    config = product.home / "indexer.toml"
    config.write_text(f"workers = 2\n{config.read_text()}")
    indexer = product.start_indexer()
    replace_in(config, "workers = 2", "workers = 3")
    hang_up(indexer)
    os.kill(indexer.pid, number)
    assert indexer.wait(60) == 0, product.said("indexer")
    assert "reloading" in product.said("indexer")


@pytest.mark.timeout(300)
def test_workers_that_die_are_followed_by_such_as_they_were_and_leave_nothing_under_way(product: Product) -> None:
    config = product.home / "indexer.toml"
    config.write_text(f"workers = 2\n{config.read_text()}")
    indexer = product.start_indexer()
    until(lambda: product.said("indexer").count("Application startup complete") == 2, lambda: product.said("indexer"))
    head = header().to_headers() | {"Content-Encoding": "zstd", "Content-Length": "1000", "Host": "localhost"}
    with socket.create_connection(("127.0.0.1", product.port), 10) as slow:
        slow.sendall(b"POST /v1/blocks HTTP/1.1\r\n")
        slow.sendall("".join(f"{name}: {value}\r\n" for name, value in head.items()).encode() + b"\r\nab")
        until(lambda: metrics(product.url)["auditship_indexer_in_flight_bytes"] > 0, lambda: product.said("indexer"))
        config.write_text(config.read_text() + f'[[readers]]\nname = "ada"\ntoken_sha256 = "{"0" * 64}"\n')
        dead = children(indexer)
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(children(indexer)) - set(dead)) == 2, lambda: product.said("indexer"), REPLACED_S)
    assert metrics(product.url)["auditship_indexer_in_flight_bytes"] == 0


@pytest.mark.timeout(300)
def test_workers_that_die_after_a_reload_that_stopped_are_followed_by_such_as_were_before(product: Product) -> None:
    config = product.home / "indexer.toml"
    config.write_text(f"workers = 2\n{config.read_text()}")
    indexer = product.start_indexer()
    (product.home / "link").symlink_to("nowhere")  # good to look at, but no worker begins with it
    replace_in(config, 'path = "store"', 'path = "link"')
    hang_up(indexer)
    until(lambda: "0 of 2 workers reloaded" in product.said("indexer"), lambda: product.said("indexer"), REPLACED_S)
    dead = children(indexer)
    for pid in dead:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(children(indexer)) - set(dead)) == 2, lambda: product.said("indexer"), REPLACED_S)
    assert urllib3.PoolManager().request("GET", f"{product.url}/readyz", timeout=30).status == 200
    assert indexer.poll() is None


def test_a_request_whose_headers_do_not_come_is_closed_and_others_are_served(product: Product) -> None:
    product.start_indexer()
    with (
        socket.create_connection(("127.0.0.1", product.port), 10) as silent,
        socket.create_connection(("127.0.0.1", product.port), 10) as slow,
    ):
        slow.sendall(b"POST /v1/blocks HTTP/1.1\r\nHost: localhost\r\n")
        assert urllib3.PoolManager().request("GET", f"{product.url}/healthz").status == 200
        for each in (silent, slow):
            each.settimeout(30)
            assert each.recv(100) == b""


def status(product: Product) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "auditship.cli", "status", "--config", "indexer.toml", "--json"]
    done = subprocess.run(command, cwd=product.home, capture_output=True, check=False, timeout=60)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_status_tells_of_agents_that_are_well_stopped_or_silent_and_of_gaps(tmp_path: Path) -> None:
    with Product(tmp_path, agent='agent_id = "gw-1"\nreport_interval_s = 2') as product:
        product.start_indexer()
        agent = product.start_agent()
        sample = Sample(1)
        append(
            product.logs / "web.jsonl", [*(sample.line("web", time.time_ns() // 1_000_000) for _ in range(50)), b"no event\n"]
        )
        product.await_stored(50)
        until(lambda: [each["lag_bytes"] for each in status(product)[1]["agents"]] == [0], lambda: status(product))
        code, told = status(product)
        assert (code, told["good"], told["events"], told["rejected"], told["gaps"], told["halts"]) == (0, True, 50, 1, 0, 0)
        assert [(each["id"], each["state"], each["streams"]) for each in told["agents"]] == [("gw-1", "ok", 1)]
        product.kill(agent)
        until(lambda: status(product)[1]["agents"][0]["state"] == "silent", lambda: status(product))
        assert status(product)[0] == 1
        agent = product.start_agent()
        until(lambda: status(product)[1]["agents"][0]["state"] == "ok", lambda: status(product))
        product.stop(agent)
        until(lambda: status(product)[1]["agents"][0]["state"] == "stopped", lambda: status(product))
        assert status(product)[0] == 0


def test_status_tells_of_a_gap(tmp_path: Path) -> None:
    with Product(tmp_path, agent="report_interval_s = 0.1") as product:
        indexer = product.start_indexer()
        path = product.logs / "web.jsonl"
        append(path, list(Sample(1).lines("web", 5)))
        agent = product.start_agent()
        product.await_stored(5)
        product.stop(indexer)
        unsent = list(Sample(2).lines("web", 50))
        append(path, unsent)
        until(lambda: f'"size":{path.stat().st_size}' in checkpoint(product), lambda: checkpoint(product))
        product.kill(agent)
        path.unlink()
        product.start_indexer()
        product.start_agent()
        until(lambda: status(product)[1]["gaps"] == 1, lambda: product.said("agent"))
        code, told = status(product)
        assert (code, told["gap_bytes"]) == (1, sum(map(len, unsent)))


def checkpoint(product: Product) -> str:
    return (product.home / "state" / "checkpoint").read_text()


def test_hang_ups_however_many_end_no_indexer(product: Product) -> None:
    config = product.home / "indexer.toml"
    config.write_text(f"workers = 1\n{config.read_text()}")
    indexer = product.start_indexer()

    def begins_again() -> bool:
        hang_up(indexer)
        assert indexer.poll() is None, product.said("indexer")
        assert "not reloaded" not in product.said("indexer")
        return (product.home / "indexer.log").read_text().count("Application startup complete") >= 3

    until(begins_again, lambda: product.said("indexer"))
