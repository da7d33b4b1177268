"""What several tests share: blocks made by hand."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import sys
import urllib.error
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import zstandard
from elasticsearch_node import Server

from auditship.block import CHAIN_START, BlockHeader, chain_next, digest
from indexer.settings import ElasticsearchSettings
from indexer.setup.administrator import Administrator
from indexer.setup.cluster import ClusterSetup
from indexer.setup.keys import Keys
from indexer.store.elasticsearch.connection import Connection

PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
DATA = b'{"a":1}\n{"b":2}\n'


def header(data: bytes = DATA, **changes: object) -> BlockHeader:
    """The headers of a block of these bytes, with changes."""
    whole = BlockHeader(
        agent="gw-1",
        host="gw-1.example",
        gateway="web",
        path=b"/var/log/web.jsonl",
        stream="0" * 32,
        offset=0,
        length=len(data),
        lines=data.count(b"\n"),
        digest=digest(data),
        chain=chain_next(CHAIN_START, digest(data)),
        created_ms=1_795_458_000_000,
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def compressed(data: bytes = DATA) -> bytes:
    """A body as an agent sends it."""
    return zstandard.compress(data)


def set_up(server: Server, folder: Path, *, empty: bool = False, **more: Any) -> ElasticsearchSettings:
    """A cluster as ``auditship setup`` leaves it, with keys in a folder; ``empty``: without the documents it had."""
    if empty:
        with suppress(urllib.error.HTTPError):  # there are none yet
            server.request("DELETE", "/_data_stream/logs-audit.*")
    keys = {"writer_key_file": folder / "writer.key", "reader_key_file": folder / "reader.key"}
    settings = ElasticsearchSettings(urls=server.urls, ca_file=server.ca, **keys, **more)
    with closing(Connection(settings, basic=(server.user, server.password))) as connection:
        administrator = Administrator(connection)
        list(ClusterSetup(administrator).run(classes=(), gateways=()))
        list(Keys(administrator, settings).ensure())
    return settings


def memory_peak(pid: int) -> int:
    """The most memory that a live process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def obey_permissions() -> None:
    """In a child: where it is root, on Linux, it gives up the right to read whatever it likes."""
    if os.geteuid() == 0 and sys.platform == "linux":
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0
