"""Being woken is a convenience: where it cannot be, the agent goes on without."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from agent import wake
from agent.wake import Wake


def test_a_directory_that_cannot_be_looked_at_is_passed_over(tmp_path: Path) -> None:
    waking = Wake(lambda: None, 10)
    try:
        waking.watch(["x" * 5000, "a\0b", str(tmp_path)])
        assert list(waking._watches) == [str(tmp_path)]
    finally:
        waking.end()


def test_where_there_are_no_more_threads_fewer_directories_are_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(wake.Observer):  # type: ignore[misc,valid-type]
        """An observer on a system that has no thread for a third directory."""

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            if len(self.emitters) == 2:
                raise RuntimeError("can't start new thread")
            return super().schedule(*args, **kwargs)

    caplog.set_level(logging.WARNING, "auditship.agent")
    monkeypatch.setattr(wake, "Observer", Full)
    names = [tmp_path / name for name in "abcd"]
    for name in names:
        name.mkdir()
    waking = Wake(lambda: None, 10)
    try:
        for _ in range(2):
            waking.watch(map(str, names))
            assert len(waking._watches) == 2
    finally:
        waking.end()
    assert caplog.text.count("can't start new thread") == 1
