"""Promises of the test node itself, and of the store when nodes die."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import elasticsearch_node
import pytest
from elasticsearch_node import Cluster
from elasticsearch_node.cluster import sweep
from elasticsearch_node.node import group_members
from sample_entries import entry
from support import set_up

from indexer.settings import ElasticsearchSettings
from indexer.store.contract import Query, Unavailable, Verdict
from indexer.store.elasticsearch import ElasticsearchReader, ElasticsearchWriter

DEADLINE_S = 60

KILLED = """
import os, signal, sys
from elasticsearch_node import Cluster
cluster = Cluster.start(heap="256m")
print(cluster.directory, cluster.nodes[0]._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def _own_node(elasticsearch_server: elasticsearch_node.Server) -> None:
    """Only where the session's server is a node of our own can another be started."""
    del elasticsearch_server
    if os.environ.get("AUDITSHIP_TEST_ES_URL"):
        pytest.skip("tests run against an existing cluster")


@pytest.mark.slow
@pytest.mark.usefixtures("_own_node")
def test_a_node_dies_with_the_process_that_started_it_and_its_files_with_the_next() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(elasticsearch_node.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], env=environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    directory, group = done.stdout.split()
    deadline = time.monotonic() + DEADLINE_S
    while group_members(int(group)):
        assert time.monotonic() < deadline, "the node outlived its parent"
        time.sleep(0.1)
    assert Path(directory).exists()
    sweep()
    assert not Path(directory).exists()


@pytest.fixture
def three(_own_node: None, tmp_path: Path) -> Iterator[tuple[Cluster, ElasticsearchSettings]]:
    """Three nodes with TLS, set up."""
    with Cluster.start(3, tls=True) as cluster:
        yield cluster, set_up(cluster.server, tmp_path, request_timeout_s=5)


@pytest.mark.slow
def test_a_node_that_is_killed_amid_bulks_loses_and_doubles_nothing(three: tuple[Cluster, ElasticsearchSettings]) -> None:
    cluster, settings = three
    cluster.server.get("/_cluster/health/logs-audit.*?wait_for_status=green&timeout=4s")
    shards = cluster.server.get("/_cat/shards/.ds-logs-audit.web-*?format=json")
    primary = next(shard["node"] for shard in shards if shard["prirep"] == "p")
    victim = next(node for node in cluster.nodes if node.name == primary)
    entries = [entry(n) for n in range(6000)]

    async def work() -> int:
        writer = ElasticsearchWriter(settings)
        interrupted = 0
        try:
            for first in range(0, 6000, 300):
                if first == 1500:
                    killer = asyncio.create_task(asyncio.to_thread(victim.kill))
                if first == 3000:
                    await killer  # what follows meets a node that is surely dead
                redelivered, deadline = False, time.monotonic() + DEADLINE_S
                while True:
                    try:
                        verdicts = await writer.append(entries[first : first + 300], redelivered=redelivered)
                    except Unavailable:
                        if time.monotonic() > deadline:
                            raise
                        interrupted, redelivered = interrupted + 1, True
                        await asyncio.sleep(0.2)
                    else:
                        break
                assert all(isinstance(verdict, Verdict) for verdict in verdicts)
        finally:
            await writer.close()
        return interrupted

    interrupted = asyncio.run(work())
    assert interrupted > 0, "the kill was not felt: the test proves nothing"
    alive = next(url for node, url in zip(cluster.nodes, cluster.urls, strict=True) if node.alive())
    cluster.server.request("POST", "/logs-audit.*/_refresh", url=alive)
    with closing(ElasticsearchReader(settings.model_copy(update={"urls": (alive,)}))) as reader:
        found = [hit.body for hit in reader.scan(Query())]
    assert found == [each.body for each in entries]
