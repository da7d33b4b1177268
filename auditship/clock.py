"""The wall clock in the two forms that are used everywhere: epoch milliseconds, and RFC 3339 in UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_MS_MIN: Final = -62_135_596_800_000  # the year 1
EPOCH_MS_MAX: Final = 253_402_300_799_999  # the end of the year 9999


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def utc(time_ms: int) -> str:
    """RFC 3339 with milliseconds; a time out of range is shown as the nearest that can be."""
    moment = EPOCH + timedelta(milliseconds=min(max(time_ms, EPOCH_MS_MIN), EPOCH_MS_MAX))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
