"""Times as people give them to commands: ``24h``, ``7d`` (before now), or RFC 3339 with an offset."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any, Final

import click

from auditship import clock
from auditship.clock import EPOCH

_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def parse(text: str, now_ms: int) -> int:
    """A time in epoch milliseconds.

    Raises:
        ValueError: saying what is expected.
    """
    if ago := _AGO.fullmatch(text):
        return now_ms - int(ago[1]) * _UNITS_MS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or (moment.tzinfo is None and len(text) > len("2026-11-23")):
        raise ValueError(f"{text!r}: 24h, 7d, 2026-11-23 (UTC) or 2026-11-23T10:00:00Z is expected")
    return (moment.replace(tzinfo=moment.tzinfo or EPOCH.tzinfo) - EPOCH) // timedelta(milliseconds=1)


class When(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases only
    """A time as an option of a command; it gives epoch milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Reads it."""
        try:
            return value if isinstance(value, int) else parse(str(value), clock.now_ms())
        except ValueError as error:
            self.fail(str(error), param, ctx)
