"""A node with little memory for what is being indexed: the writer finds what it takes, and everything is stored once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from elasticsearch_node import Cluster, Server
from sample_entries import entry
from support import set_up

from indexer.settings import MIB, ElasticsearchSettings
from indexer.store.contract import Unavailable, Verdict
from indexer.store.elasticsearch import ElasticsearchWriter

APPENDS = 24


@pytest.fixture
def small(elasticsearch_server: Server, tmp_path: Path) -> Iterator[ElasticsearchSettings]:
    """A node of our own that takes 4 MiB at once, and refuses what is beyond it with 429."""
    del elasticsearch_server  # where there is none, there is no other one either
    if os.environ.get("AUDITSHIP_TEST_ES_URL"):
        pytest.skip("tests run against an existing cluster")
    with Cluster.start(settings={"indexing_pressure.memory.limit": "4mb"}) as cluster:
        yield set_up(cluster.server, tmp_path)


@pytest.mark.slow
def test_a_node_that_pushes_back_is_sent_less_and_stores_everything(
    small: ElasticsearchSettings, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = [[entry(n, event={"original": "x" * (MIB // 2)}) for n in range(at, at + 4)] for at in range(0, APPENDS * 4, 4)]

    async def deliver(writer: ElasticsearchWriter, block: list) -> list:  # type: ignore[type-arg]
        """As an agent does: until it is taken, marked as redelivered from the second time on."""
        is_again = False
        while True:
            try:
                return list(await writer.append(block, redelivered=is_again))
            except Unavailable as error:
                assert error.overloaded
                is_again = True

    async def work() -> list[Verdict]:
        writer = ElasticsearchWriter(small)
        try:
            found = await asyncio.gather(*(deliver(writer, block) for block in blocks))
            assert writer._window.bulks * writer._window.bytes < 2 * 8 * MIB
            return [verdict for verdicts in found for verdict in verdicts]
        finally:
            await writer.close()

    verdicts = asyncio.run(work())
    assert len(verdicts) == APPENDS * 4
    assert set(verdicts) <= {Verdict.CREATED, Verdict.DUPLICATE}
    assert "pushes back: at most 1 bulks of" in caplog.text
    assert asyncio.run(again(small, blocks)) == {Verdict.DUPLICATE}


async def again(settings: ElasticsearchSettings, blocks: list) -> set:  # type: ignore[type-arg]
    """The verdicts of delivering everything once more: all of it is there."""
    writer = ElasticsearchWriter(settings)
    try:
        return {each for block in blocks for each in await writer.append(block, redelivered=True)}
    finally:
        await writer.close()
