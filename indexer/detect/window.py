"""The events of one group (one user, one address …) that a correlation still has to remember, and what is in a window of them.

Bounded: of each value only as many events are kept as can matter, and only so many values.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from indexer.detect.event import Event
from indexer.detect.rule import Correlation

COUNTED_MAX: Final = 1000
ORDERED_MAX: Final = 8
VALUES_MAX: Final = 1000


class Found(NamedTuple):
    """A window that satisfies its rule: its events by time, and what was counted."""

    total: int
    events: list[Event]


class Window:
    """A group's events, by value: the counted field's, the rule's number in ``temporal`` kinds, none otherwise."""

    __slots__ = ("_by", "_keep", "_values_max", "newest_ms")

    def __init__(self, rule: Correlation) -> None:
        self._by: dict[str | int, list[Event]] = {}
        self._keep = keep_of(rule)
        self._values_max = min(max(4 * rule.count, 16), VALUES_MAX)
        self.newest_ms = -(2**63)

    def __len__(self) -> int:
        return sum(map(len, self._by.values()))

    def add(self, value: str | int, event: Event) -> None:
        """Remembers an event, once; one that is older than all that there is room for, until the next of its value."""
        events = self._by.pop(value, None)
        if events is None:
            if len(self._by) >= self._values_max:
                del self._by[next(iter(self._by))]  # the one that was seen the longest ago
            events = []
        self._by[value] = events
        del events[: -self._keep]
        at = bisect_left(events, event[:2], key=_place)
        if at == len(events) or _place(events[at]) != event[:2]:
            events.insert(at, event)
            if at > 0:
                del events[: -self._keep]
        self.newest_ms = max(self.newest_ms, event.time_ms)

    def is_unsure(self, rule: Correlation, event: Event) -> bool:
        """Whether a window that an event has a part in might satisfy the rule if nothing had made room for later events.

        Never with ``per_value_max``: a value of which some had to make room has more events than count.
        """
        if event.time_ms >= self.newest_ms or rule.per_value_max is not None:
            return False
        if rule.kind == "event_count":
            return len(self) >= self._keep
        return sum(each[-1].time_ms >= event.time_ms - rule.span_ms for each in self._by.values()) >= rule.count

    def forget(self, before_ms: int) -> None:
        """Lets go of what is older."""
        for value, events in list(self._by.items()):
            if events[-1].time_ms < before_ms:
                del self._by[value]
            elif events[0].time_ms < before_ms:
                del events[: bisect_left(events, before_ms, key=lambda each: each.time_ms)]

    def ends(self, event: Event, span_ms: int) -> list[int]:
        """The last moments of the windows that an event has a part in: its own, and those of later events."""
        if event.time_ms >= self.newest_ms:
            return [event.time_ms]
        last = event.time_ms + span_ms
        later = {each.time_ms for events in self._by.values() for each in events if event.time_ms < each.time_ms <= last}
        return [event.time_ms, *sorted(later)[-VALUES_MAX:]]

    def found(self, rule: Correlation, end_ms: int) -> Found | None:
        """What the rule finds in the window that ends there."""
        start_ms = end_ms - rule.span_ms
        if rule.kind == "temporal_ordered":
            return self._in_order(rule, start_ms, end_ms)
        within = dict(self._within(start_ms, end_ms))
        if rule.kind == "event_count":
            count = sum(map(len, within.values()))
        else:
            if rule.per_value_max is not None:
                within = {value: part for value, part in within.items() if len(part) <= rule.per_value_max}
            count = len(within)
        if count < rule.count:
            return None
        return Found(count, sorted((each for part in within.values() for each in part), key=_place))

    def _within(self, start_ms: int, end_ms: int) -> Iterator[tuple[str | int, list[Event]]]:
        for value, events in self._by.items():
            first = bisect_left(events, start_ms, key=lambda each: each.time_ms)
            last = bisect_right(events, end_ms, key=lambda each: each.time_ms)
            if first < last:
                yield value, events[first:last]

    def _in_order(self, rule: Correlation, start_ms: int, end_ms: int) -> Found | None:
        """The latest row of events, one of each rule, that ends there."""
        row: list[Event] = []
        limit = end_ms
        for number in reversed(range(len(rule.rules))):
            events = self._by.get(number, [])
            at = bisect_right(events, limit, key=lambda each: each.time_ms)
            while at and row and events[at - 1].id == row[-1].id:
                at -= 1  # one event is not two in a row
            if at == 0 or events[at - 1].time_ms < start_ms:
                return None
            row.append(events[at - 1])
            limit = events[at - 1].time_ms
        return Found(len(row), row[::-1]) if row[0].time_ms == end_ms else None


def _place(event: Event) -> tuple[int, str]:
    return event[:2]


def keep_of(rule: Correlation) -> int:
    """How many events of one value can matter."""
    if rule.kind == "event_count":
        return min(max(5 * rule.count, 50), max(COUNTED_MAX, rule.count))
    if rule.kind == "temporal_ordered":
        return ORDERED_MAX
    return (rule.per_value_max or 0) + 1
