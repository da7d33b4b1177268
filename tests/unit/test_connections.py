"""The indexer may hold as many connections open as it is told to, as far as the system allows it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging, resource, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
from indexer.commands.indexer import _allow_connections
_allow_connections(int(sys.argv[3]))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "expected"),
    [(300, 4000, 1000, "1256"), (2000, 4000, 1000, "2000"), (300, 600, 1000, "600")],
)
def test_the_limit_of_open_files_fits_the_connections(soft: int, hard: int, connections: int, expected: str) -> None:
    command = [sys.executable, "-c", PROGRAM, *map(str, (soft, hard, connections))]
    *told, limit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert limit == expected
    assert bool(told) is (hard < connections), "told where it is not enough"
    assert all(str(connections) in line for line in told)
