"""Where the tests' server comes from: the first of these that is possible.

1. ``AUDITSHIP_TEST_ES_URL``, such as ``https://elastic:password@es.example:9200`` (``AUDITSHIP_TEST_ES_CA_FILE`` names its
   authority): a cluster **for tests**; its ``logs-audit.*`` data streams are deleted.
2. A node of our own, with a JDK and Maven.
3. The official image, with a Docker engine.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from elasticsearch_node.cluster import Cluster
from elasticsearch_node.docker import container
from elasticsearch_node.install import NodeError
from elasticsearch_node.node import AS_SHIPPED
from elasticsearch_node.server import Server

MEASURED_HEAP = "2g"
"""As large from the beginning as it may become: what a heap costs that has to grow is not a document's."""
IMPOSSIBLE = (NodeError, OSError, subprocess.SubprocessError)


@contextmanager
def server(*, measured: bool = False) -> Iterator[Server]:
    """A server for as long as it is needed; a node of ours that is ``measured`` compiles and collects as Elastic ships it.

    Raises:
        NodeError: there can be none; says what to install.
    """
    if url := os.environ.get("AUDITSHIP_TEST_ES_URL"):
        yield _existing(url)
        return
    with ExitStack() as stack:
        try:
            cluster = Cluster.start(heap=MEASURED_HEAP, jvm=AS_SHIPPED) if measured else Cluster.start()
            stack.callback(cluster.kill)
            found = cluster.server
        except IMPOSSIBLE as no_node:
            try:
                found = stack.enter_context(container())
            except IMPOSSIBLE as no_container:
                raise NodeError(
                    "no Elasticsearch to test against: install a JDK 21 or later and Maven, or a Docker engine, or name a "
                    f"cluster for tests in AUDITSHIP_TEST_ES_URL ({no_node}; {no_container})"
                ) from None
        yield found


def _existing(url: str) -> Server:
    parts = urlsplit(url)
    if not parts.username or not parts.password:
        raise NodeError("AUDITSHIP_TEST_ES_URL needs an administrator: https://USER:PASSWORD@HOST:PORT")
    ca = os.environ.get("AUDITSHIP_TEST_ES_CA_FILE")
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return Server((address,), unquote(parts.username), unquote(parts.password), Path(ca) if ca else None)
