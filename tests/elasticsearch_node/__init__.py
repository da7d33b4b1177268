"""Real Elasticsearch nodes for tests, on a machine that has Java and Maven but no Docker.

The server is Elastic's own build as it travels inside another product's archive on Maven Central; :mod:`.install` fetches
and unpacks it once. That copy leaves out the index lifecycle and data stream modules; ``plugin/`` gives back what a test
needs of them. The archive is under the Elastic License 2.0: it is run here, never passed on.

    python tests/elasticsearch_node --nodes 3      starts a cluster, prints how to connect as JSON, stops it on Ctrl-C

    with Cluster.start() as cluster:
        client = Elasticsearch(cluster.url, basic_auth=(cluster.user, cluster.password))

Nodes run on Linux only, listen on loopback only, as ``nobody`` where we are root, and die with the process that started
them, also when that is killed.
"""

from elasticsearch_node.cluster import Cluster
from elasticsearch_node.install import NodeError, install
from elasticsearch_node.node import Node
from elasticsearch_node.server import Server
from elasticsearch_node.source import server

__all__ = ["Cluster", "Node", "NodeError", "Server", "install", "server"]
