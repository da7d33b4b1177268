"""An Elasticsearch that is slow, or goes away for a while: bounded memory, and nothing lost or stored twice."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from elasticsearch_node import Server
from product import Product
from shipping import append, until
from support import memory_peak

sys.path.insert(0, str(Path(__file__).parents[1] / "chaos"))

from proxy import Proxy

from auditship.sample import Sample
from indexer.settings import ElasticsearchSettings

MIB = 1 << 20


@pytest.fixture
def proxy(elasticsearch_server: Server) -> Iterator[Proxy]:
    url = urlsplit(elasticsearch_server.urls[0])
    if url.hostname not in ("127.0.0.1", "localhost"):
        pytest.skip("the proxy stands before a server on this machine")
    assert url.port is not None
    with Proxy(url.port) as proxy:
        yield proxy


@pytest.fixture
def product(proxy: Proxy, elasticsearch_settings: ElasticsearchSettings, tmp_path: Path) -> Iterator[Product]:
    keys = {
        "writer_key_file": elasticsearch_settings.writer_key_file,
        "reader_key_file": elasticsearch_settings.reader_key_file,
    }
    files = "".join(f'{name} = "{path}"\n' for name, path in keys.items())
    url = urlsplit(elasticsearch_settings.urls[0])
    urls = json.dumps([f"{url.scheme}://{url.hostname}:{proxy.port}"])
    files += f'ca_file = "{elasticsearch_settings.ca_file}"\n' if elasticsearch_settings.ca_file else ""
    store = f'in_flight_bytes_max = {2 * MIB}\n[store]\nkind = "elasticsearch"\n[elasticsearch]\nurls = {urls}\n{files}'
    with Product(tmp_path, store=f"{store}request_timeout_s = 5\nbulk_bytes_max = {MIB}\n") as product:
        yield product


@pytest.mark.slow
def test_a_slow_cluster_takes_no_memory_and_everything_in_the_end(product: Product, proxy: Proxy) -> None:
    indexer = product.start_indexer()
    agent = product.start_agent()
    sample = Sample(11, numbered=True)
    first = list(sample.lines("web", 3000))
    append(product.logs / "web.jsonl", first)
    product.await_stored(len(first))  # what it loads when it is used first is there
    before = memory_peak(indexer.pid)
    written = list(sample.lines("web", 30_000))
    assert sum(map(len, written)) > 12 * MIB
    append(product.logs / "web.jsonl", written)
    proxy.mode = "slow"
    time.sleep(5)
    proxy.mode = "hole"
    proxy.drop_all()
    until(lambda: "the store" in product.said("agent") or "503" in product.said("agent"), lambda: product.said("agent"))
    proxy.mode = "pass"
    proxy.drop_all()
    stored = product.await_stored(len(first) + len(written))
    assert memory_peak(indexer.pid) - before < 64 * MIB
    assert sorted(each["event"]["original"].encode() + b"\n" for each in stored) == sorted(first + written)
    assert product.stop(agent) == 0
