"""Gateways that say nothing while others speak: told from which gateways were heard in each minute.

A gateway is silent once others have spoken in as many minutes as the rule's timespan has, and it in none of them, if it spoke
in every minute of a timespan before that: one that rarely speaks raises nothing, nor does a stopped indexer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from indexer.detect.span import Span
from indexer.store.contract import Reader

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
"""A store may refuse to look through more at once."""
KEPT: Final = 24 * 60
GATEWAYS_MAX: Final = 200


class Silent(NamedTuple):
    """A gateway, and the minute that it was last heard in."""

    gateway: str
    last_ms: int


class Heard:
    """Which gateways were heard in which minutes: the last day's."""

    def __init__(self) -> None:
        self._minutes: dict[str, set[int]] = {}
        self._any: set[int] = set()
        self.until_ms: int | None = None
        """Everything that arrived before then is known."""

    def add(self, minute_ms: int, gateways: Iterable[str]) -> None:
        """Gateways heard in a minute (its first millisecond)."""
        minute = minute_ms // MINUTE_MS
        for gateway in gateways:
            self._any.add(minute)
            if gateway in self._minutes or len(self._minutes) < GATEWAYS_MAX:
                self._minutes.setdefault(gateway, set()).add(minute)
        for minutes in (self._any, *self._minutes.values()):
            minutes -= {each for each in minutes if each < minute - KEPT}
        self.until_ms = minute_ms + MINUTE_MS

    def silent(self, span_ms: int) -> Iterator[Silent]:
        """The gateways that are silent now."""
        if self.until_ms is None:
            return
        span, now = max(1, -(-span_ms // MINUTE_MS)), self.until_ms // MINUTE_MS
        last: Mapping[str, int] = {gateway: max(minutes) for gateway, minutes in self._minutes.items() if minutes}
        for gateway, minute in last.items():
            spoke = all(minute - back in self._minutes[gateway] for back in range(span))
            if spoke and sum(each in self._any for each in range(minute + 1, now)) >= span:
                yield Silent(gateway, minute * MINUTE_MS)


def spoken(reader: Reader, span: Span) -> Iterator[tuple[int, Collection[str]]]:
    """The gateways that spoke in each whole minute (its first millisecond) of a span."""
    minutes = range(span.since_ms // MINUTE_MS * MINUTE_MS, span.until_ms - MINUTE_MS + 1, MINUTE_MS)
    if span.by_arrival:
        for minute_ms in minutes:
            yield minute_ms, _gateways(reader, Span(minute_ms, minute_ms + MINUTE_MS, by_arrival=True))
        return
    heard: defaultdict[int, set[str]] = defaultdict(set)
    hours = (Span(hour, min(hour + HOUR_MS, span.until_ms)) for hour in range(span.since_ms, span.until_ms, HOUR_MS))
    for name in {name for hour in hours for name in _gateways(reader, hour)}:
        for bucket in reader.histogram(span.query(datasets=(name,)), interval_ms=MINUTE_MS):
            heard[bucket.start_ms].add(name)
    for minute_ms in minutes:
        yield minute_ms, heard[minute_ms]


def _gateways(reader: Reader, span: Span) -> list[str]:
    found = reader.facets(span.query(), ["audit.gateway"], limit=GATEWAYS_MAX)
    return [name for name, _ in found["audit.gateway"]]
