"""Deletes whole segments when their time is over: nothing is rewritten, and the space is free at once.

A segment holds one day's arrivals. It goes when the last moment of that day is older than the retention: with 30 days, 30 to 31
days are kept. A reader that has it open reads on. A file in which nothing is yet, since its writer was killed or had no
room, goes a day after its own.

A clock that has gone further than the time since the last look is not believed until the next one: what it would delete, if it
is set right again, cannot be brought back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from indexer.store.embedded.segment import is_unmade, segments

UNMADE_KEPT: Final = timedelta(days=1)
JUMP_MS_MAX: Final = 3_600_000
_log = logging.getLogger("auditship.indexer")


class EmbeddedExpirer:
    """The side of the store that deletes. Any number of processes may do it at once.

    Args:
        directory: the store's.
        uptime_s: a clock that nobody sets.
    """

    def __init__(self, directory: Path, uptime_s: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._uptime_s = uptime_s
        self._set_ahead_ms: float | None = None

    def expire(self, now_ms: int, *, exceptions: Mapping[str, int | None] | None = None) -> list[str]:
        """Deletes segments past their retention; returns the names of what it deleted.

        ``exceptions``: segments for which other days than those of their class hold; none: they are kept.
        """
        before, self._set_ahead_ms = self._set_ahead_ms, now_ms - self._uptime_s() * 1000
        if before is not None and self._set_ahead_ms - before > JUMP_MS_MAX:
            _log.warning("the clock was set ahead, or the machine slept: nothing is deleted for being old until the next look")
            return []
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        deleted = []
        for segment in segments(self._directory):
            day_end = datetime(segment.day.year, segment.day.month, segment.day.day, tzinfo=UTC) + timedelta(days=1)
            days = (exceptions or {}).get(segment.path.name, int(segment.retention[:-1]))
            is_due = days is not None and now >= day_end + timedelta(days=days)
            if not is_due and not (now >= day_end + UNMADE_KEPT and is_unmade(segment.path)):
                continue
            if _delete(segment.path):
                deleted.append(segment.path.name)
        return deleted


def _delete(path: Path) -> bool:
    """Deletes a segment, unless another process was first.

    What is beside it goes before, since nobody would look for it after a kill, and once more: a reader may have made it again.
    """
    _delete_beside(path)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    _delete_beside(path)
    return True


def _delete_beside(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
