"""The whole product on a real Elasticsearch: configured as an operator would, searched as Kibana would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from elasticsearch_node import Server
from product import Product

from auditship.sample import Sample
from indexer.settings import ElasticsearchSettings

LINES = {gateway: list(Sample(at).lines(gateway, 700)) for at, gateway in enumerate(("web", "cli", "api"))}


@pytest.fixture
def product(elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings, tmp_path: Path) -> Iterator[Product]:
    assert elasticsearch_settings.urls, "the fixture leaves empty data streams behind"
    urls = json.dumps(list(elasticsearch_server.urls))
    ca = f'ca_file = "{elasticsearch_server.ca}"\n' if elasticsearch_server.ca else ""
    store = (
        f'[store]\nkind = "elasticsearch"\n[elasticsearch]\nurls = {urls}\n{ca}'
        'writer_key_file = "writer.key"\nreader_key_file = "reader.key"\n'
    )
    with Product(tmp_path, store=store) as product:
        command = [
            sys.executable,
            "-m",
            "auditship.cli",
            "setup",
            "--config",
            "indexer.toml",
            "--user",
            elasticsearch_server.user,
        ]
        password = {"ELASTICSEARCH_PASSWORD": elasticsearch_server.password}
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **password}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield product


def test_lines_become_documents_in_the_data_streams_of_the_design(product: Product, elasticsearch_server: Server) -> None:
    for gateway, lines in LINES.items():
        (product.logs / f"{gateway}.jsonl").write_bytes(b"".join(lines) + b"not an event\n")
    product.start_indexer()
    product.ship()
    elasticsearch_server.request("POST", "/logs-audit.*/_refresh")
    documents = product.export()
    written = Counter(line.rstrip(b"\n") for lines in LINES.values() for line in lines) + Counter([b"not an event"] * 3)
    assert Counter(each["event"]["original"].encode() for each in documents) == written
    for gateway in LINES:
        assert elasticsearch_server.get(f"/logs-audit.{gateway}-30d/_count")["count"] == 700
    assert elasticsearch_server.get("/logs-audit.rejected-30d/_count")["count"] == 3


def test_a_killed_indexer_leaves_nothing_lost_and_nothing_twice(product: Product, elasticsearch_server: Server) -> None:
    for gateway, lines in LINES.items():
        (product.logs / f"{gateway}.jsonl").write_bytes(b"".join(lines))
    config = product.home / "agent.toml"
    config.write_text("block_bytes_max = 16384\n" + config.read_text())
    indexer = product.start_indexer()
    product.start_agent()
    stored = 0
    while not stored:
        elasticsearch_server.request("POST", "/logs-audit.*/_refresh")
        stored = elasticsearch_server.get("/logs-audit.*/_count")["count"]
    product.kill(indexer)
    product.start_indexer()
    documents = product.await_stored(2100)
    assert Counter(each["event"]["original"].encode() for each in documents) == Counter(
        line.rstrip(b"\n") for lines in LINES.values() for line in lines
    )
