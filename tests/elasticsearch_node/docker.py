"""The official image, where a Docker engine works: the whole server, with everything that our trimmed copy lacks.

The container lives as long as its standard input is open, which is to say no longer than the process that started it.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager

from elasticsearch_node.cluster import START_TIMEOUT_S
from elasticsearch_node.install import VERSION, NodeError, say
from elasticsearch_node.server import Server

IMAGE = f"docker.elastic.co/elasticsearch/elasticsearch:{VERSION}"
UNTIL_INPUT_ENDS = "/usr/local/bin/docker-entrypoint.sh eswrapper & cat > /dev/null; kill $!; wait"
PULL_TIMEOUT_S = 1800


def engine() -> str:
    """The docker client, if an engine answers it.

    Raises:
        NodeError: none does.
    """
    client = shutil.which("docker")
    if client is None:
        raise NodeError("Docker is not installed")
    done = subprocess.run([client, "info"], check=False, capture_output=True, timeout=30)
    if done.returncode:
        raise NodeError("no Docker engine answers")
    return client


@contextmanager
def container() -> Iterator[Server]:
    """A running node in a container.

    Raises:
        NodeError: no engine, or the node does not come up.
    """
    client = engine()
    say(f"starting {IMAGE}")
    subprocess.run([client, "pull", "--quiet", IMAGE], check=True, capture_output=True, timeout=PULL_TIMEOUT_S)
    name, password = f"auditship-test-{secrets.token_hex(4)}", secrets.token_urlsafe(18)
    options = [
        f"ELASTIC_PASSWORD={password}",
        "discovery.type=single-node",
        "xpack.security.http.ssl.enabled=false",
        "indices.lifecycle.poll_interval=1s",
        "cluster.routing.allocation.disk.threshold_enabled=false",
        "ES_JAVA_OPTS=-Xms512m -Xmx512m",
    ]
    environment = [part for option in options for part in ("--env", option)]
    run = [client, "run", "--rm", "--interactive", "--name", name, "--publish", "127.0.0.1::9200", *environment]
    process = subprocess.Popen(
        [*run, "--entrypoint", "/bin/bash", IMAGE, "-c", UNTIL_INPUT_ENDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _when_up(client, name, password, process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def _when_up(client: str, name: str, password: str, process: subprocess.Popen[bytes]) -> Server:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        shown = subprocess.run([client, "port", name, "9200"], check=False, capture_output=True, text=True, timeout=30)
        if shown.returncode == 0 and shown.stdout:
            server = Server((f"http://{shown.stdout.splitlines()[0].strip()}",), "elastic", password)
            try:
                server.get("/_cluster/health?wait_for_status=yellow&timeout=1s")
            except (OSError, urllib.error.URLError):
                pass  # not listening yet
            else:
                return server
        time.sleep(0.5)
    raise NodeError(f"{IMAGE} did not come up within {START_TIMEOUT_S:.0f} s")
