"""What the agent ships to in these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A real server in an indexer's place."""
    with Receiver() as receiver:
        yield receiver
