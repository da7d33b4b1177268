"""Nodes started together: one for most tests, three where a test kills one of them."""

from __future__ import annotations

import fcntl
import os
import random
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from elasticsearch_node.install import VERSION, NodeError, install, say
from elasticsearch_node.node import BOOTS_FAST, RUN_AS, USER, Node
from elasticsearch_node.server import Server

PREFIX = "auditship-elasticsearch-"
START_TIMEOUT_S = 120.0


@dataclass
class Cluster:
    """Running nodes, and how to reach them. ``ca`` is the authority's certificate if they speak TLS."""

    home: Path
    directory: Path
    nodes: list[Node]
    password: str
    ca: Path | None
    lock: IO[str]
    user: str = USER

    @classmethod
    def start(
        cls,
        nodes: int = 1,
        *,
        tls: bool = False,
        heap: str = "512m",
        settings: Mapping[str, object] | None = None,
        jvm: str = BOOTS_FAST,
    ) -> Cluster:
        """Starts that many nodes with fresh data and a random password, and returns once they form a healthy cluster.

        Raises:
            NodeError: saying what is missing, or the end of the node's log.
        """
        home = install()
        sweep()
        directory = Path(tempfile.mkdtemp(prefix=PREFIX))
        directory.chmod(0o755)
        ca = make_certificates(directory) if tls else None
        taken: set[int] = set()
        members = [
            Node(f"n{i}", directory / f"n{i}", _free_port(9210, taken), _free_port(9310, taken)) for i in range(1, nodes + 1)
        ]
        cluster = cls(home, directory, members, secrets.token_urlsafe(18), ca, _locked(directory))
        for node in members:
            node.configure(cluster._settings(node) | dict(settings or {}), heap, cluster.password, jvm)
            if ca:
                for name in ("node.key", "node.crt"):
                    shutil.copy(directory / name, node.directory / "config" / name)
            if os.geteuid() == 0:
                subprocess.run(["chown", "-R", f"{RUN_AS}:nogroup", node.directory], check=True)
        try:
            for node in members:
                node.launch(home)
            cluster.wait()
        except BaseException:
            cluster.kill()
            raise
        return cluster

    def _settings(self, node: Node) -> dict[str, object]:
        settings: dict[str, object] = {
            "cluster.name": "test",
            "node.name": node.name,
            "network.host": "127.0.0.1",
            "http.port": node.port,
            "transport.port": node.transport_port,
            "path.data": str(node.directory / "data"),
            "path.logs": str(node.directory / "logs"),
            "xpack.security.enabled": True,
            "xpack.security.enrollment.enabled": False,
            "xpack.security.http.ssl.enabled": self.ca is not None,
            "cluster.routing.allocation.disk.threshold_enabled": False,
            "indices.lifecycle.poll_interval": "1s",
        }
        if len(self.nodes) == 1:
            settings["discovery.type"] = "single-node"
        else:
            settings["discovery.seed_hosts"] = [f"127.0.0.1:{each.transport_port}" for each in self.nodes]
            settings["cluster.initial_master_nodes"] = [each.name for each in self.nodes]
        if self.ca:
            settings |= {"xpack.security.http.ssl.key": "node.key", "xpack.security.http.ssl.certificate": "node.crt"}
        return settings

    @property
    def urls(self) -> list[str]:
        """Every node's address."""
        scheme = "https" if self.ca else "http"
        return [f"{scheme}://127.0.0.1:{node.port}" for node in self.nodes]

    @property
    def url(self) -> str:
        """The first node's address."""
        return self.urls[0]

    @property
    def server(self) -> Server:
        """How to reach it as an administrator."""
        return Server(tuple(self.urls), self.user, self.password, self.ca)

    def wait(self) -> None:
        """Returns once every launched node is in one cluster with all primaries assigned."""
        begun = time.monotonic()
        expected = [(node, url) for node, url in zip(self.nodes, self.urls, strict=True) if node.launched]
        health = f"/_cluster/health?wait_for_status=yellow&wait_for_nodes={len(expected)}&timeout=1s"
        while True:
            for node, _ in expected:
                if not node.alive():
                    raise NodeError(f"node {node.name} ended:\n{node.log_tail()}")
            try:
                if self.server.get(health, url=expected[0][1])["timed_out"] is False:
                    say(f"Elasticsearch {VERSION}: {len(expected)} node(s) up in {time.monotonic() - begun:.0f} s")
                    return
            except (OSError, ValueError):
                pass  # not listening yet, or not yet able to say
            if time.monotonic() - begun > START_TIMEOUT_S:
                raise NodeError(f"not healthy after {START_TIMEOUT_S:.0f} s:\n{expected[0][0].log_tail()}")
            time.sleep(0.2)

    def relaunch(self, node: Node) -> None:
        """Starts a stopped or killed node again on the data it left."""
        node.launch(self.home)
        self.wait()

    def stop(self) -> None:
        """Stops the nodes and removes their directory."""
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            node.stop()
        self._remove()

    def kill(self) -> None:
        """kill -9 of every node, and removes their directory: what tests need at the end, at once."""
        for node in self.nodes:
            node.kill()
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _locked(directory: Path) -> IO[str]:
    """Marks the directory as in use for as long as this process lives."""
    lock = (directory / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def sweep() -> None:
    """Removes the directories of clusters whose process was killed."""
    for lock_file in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/lock"):
        try:
            with lock_file.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_file.parent, ignore_errors=True)
        except OSError:
            continue  # in use, or another user's


def _free_port(first: int, taken: set[int]) -> int:
    for port in random.sample(range(first, first + 90), 90):  # by chance: others on this machine may look at the same moment
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in taken:
                taken.add(port)
                return port
    raise NodeError(f"no free port from {first} on")


def make_certificates(directory: Path) -> Path:
    """A throw-away authority and a certificate for loopback signed by it; returns the authority's certificate."""

    def request(name: str, *extra: str) -> None:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", f"/CN={name}"]
        files = ["-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}.crt")]
        subprocess.run(["openssl", "req", "-x509", *key, *files, *extra], check=True, capture_output=True)

    request("ca", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    signer = ("-CA", f"{directory}/ca.crt", "-CAkey", f"{directory}/ca.key")
    names = ("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE")
    request("node", *signer, *names)
    return directory / "ca.crt"
