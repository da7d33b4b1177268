"""What workers have counted, when some of them are no more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from indexer.metrics import _forget_the_dead


@pytest.mark.parametrize(("error", "is_kept"), [(None, True), (ProcessLookupError, False), (PermissionError, False)])
def test_what_dead_workers_had_under_way_is_forgotten_also_when_another_user_has_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError] | None, is_kept: bool
) -> None:
    def kill(number: int, kind: int) -> None:
        assert (number, kind) == (4321, 0)
        if error is not None:
            raise error

    monkeypatch.setattr(os, "kill", kill)
    for name in ("gauge_livesum_4321.db", "counter_4321.db"):
        (tmp_path / name).touch()
    _forget_the_dead(tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {"counter_4321.db"} | ({"gauge_livesum_4321.db"} if is_kept else set())
