"""Deletes whole segments when their time is over: nothing is rewritten, and the space is free at once.

A segment holds one day's arrivals. It goes when the last moment of that day is older than the retention: with 30 days, 30 to 31
days are kept. A reader that has it open reads on. A file in which nothing is yet, since its writer was killed or had no
room, goes a day after its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from indexer.store.embedded.segment import is_unmade, segments

UNMADE_KEPT: Final = timedelta(days=1)


class EmbeddedExpirer:
    """The side of the store that deletes. Any number of processes may do it at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def expire(self, now_ms: int, *, exceptions: Mapping[str, int | None] | None = None) -> list[str]:
        """Deletes segments past their retention; returns the names of what it deleted.

        ``exceptions``: segments for which other days than those of their class hold; none: they are kept.
        """
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        deleted = []
        for segment in segments(self._directory):
            day_end = datetime(segment.day.year, segment.day.month, segment.day.day, tzinfo=UTC) + timedelta(days=1)
            days = (exceptions or {}).get(segment.path.name, int(segment.retention[:-1]))
            is_due = days is not None and now >= day_end + timedelta(days=days)
            if not is_due and not (now >= day_end + UNMADE_KEPT and is_unmade(segment.path)):
                continue
            try:
                segment.path.unlink()
            except FileNotFoundError:
                continue  # another process was first
            for suffix in ("-wal", "-shm"):
                segment.path.with_name(segment.path.name + suffix).unlink(missing_ok=True)
            deleted.append(segment.path.name)
        return deleted
