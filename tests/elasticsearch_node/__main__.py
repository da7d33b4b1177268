"""A cluster to try things on, until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elasticsearch_node import Cluster, NodeError


def main() -> None:
    """Starts, prints how to connect, waits."""
    parser = argparse.ArgumentParser(description="Real Elasticsearch nodes for tests, until Ctrl-C.")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--tls", action="store_true", help="HTTPS with a throw-away authority")
    parser.add_argument("--heap", default="512m", help="largest heap of each node")
    arguments = parser.parse_args()
    try:
        cluster = Cluster.start(arguments.nodes, tls=arguments.tls, heap=arguments.heap)
    except NodeError as error:
        sys.exit(f"error: {error}")
    with cluster:
        ca = str(cluster.ca) if cluster.ca else None
        how = {"urls": cluster.urls, "user": cluster.user, "password": cluster.password, "ca": ca}
        sys.stdout.write(json.dumps(how) + "\n")
        sys.stdout.flush()
        ends = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # only now: the nodes would inherit it
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
