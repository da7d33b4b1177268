"""Counts events as rules say. Pure: events in, hits out; what checks ask of the world is given.

Events come by time; one that is later than another by no more than a rule's timespan is still counted rightly. One that is
later than that, or that begins a row whose other events are past, is not counted but put into :attr:`Engine.late`: whoever
feeds the engine reads that time again, with an engine of its own.

Memory is bounded: :data:`EVENTS_MAX` events for each rule; beyond it the groups that were quiet the longest are forgotten,
and :attr:`Engine.forgotten` counts them.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from indexer.detect.check import World
from indexer.detect.event import Event
from indexer.detect.rule import About, Correlation, Events, Rule
from indexer.detect.ruleset import Ruleset
from indexer.detect.window import Window

EVENTS_MAX: Final = 20_000
HITS_MAX: Final = 10_000
"""Alerts of one run."""
LATE_MAX: Final = 100
"""Spans of time that one run reads again for a rule."""
BUCKET_MS_MIN: Final = 3_600_000
"""A cause that lasts makes one alert in that time, or in the rule's timespan where that is longer."""


class Hit(NamedTuple):
    """What a rule found. ``start_ms`` begins the span of time in which the same rule and ``group`` make one alert."""

    about: About
    group: tuple[str, ...]
    start_ms: int
    span_ms: int
    total: int
    events: list[Event]


class Late(NamedTuple):
    """A span of time in which a rule's events came too late to be counted: both ends included."""

    first_ms: int
    last_ms: int


class _Groups:
    """A correlation's windows, the one that was added to last at the end."""

    def __init__(self, rule: Correlation) -> None:
        self.rule = rule
        self.windows: OrderedDict[tuple[str, ...], Window] = OrderedDict()
        self.size = 0
        self.newest_ms = -(2**63)

    def window(self, key: tuple[str, ...]) -> Window:
        window = self.windows.get(key)
        if window is None:
            window = self.windows[key] = Window(self.rule)
        self.windows.move_to_end(key)
        return window

    def shrink(self) -> int:
        """Forgets groups until there is room; how many."""
        count = 0
        while self.size > EVENTS_MAX and len(self.windows) > 1:
            _, window = self.windows.popitem(last=False)
            self.size -= len(window)
            count += 1
        return count


class Engine:
    """The state of all correlations of a ruleset, and the hits found since they were last taken."""

    def __init__(self, rules: Ruleset, world: World) -> None:
        self._rules = rules.rules
        self._world = world
        self._groups = {rule.about.name: _Groups(rule) for rule in rules.correlations()}
        self._uses: defaultdict[str, list[tuple[_Groups, int]]] = defaultdict(list)
        for groups in self._groups.values():
            for number, name in enumerate(groups.rule.rules):
                self._uses[name].append((groups, number))
        self._hits: dict[tuple[str, tuple[str, ...], int], Hit] = {}
        self._is_priming = False
        self.late: dict[str, list[Late]] = {}
        self.forgotten = 0
        self.left_out = 0

    def prime(self, events: Iterable[tuple[Event, Iterable[str]]]) -> None:
        """Events that were looked at before: they are remembered, and make no hits."""
        self._is_priming = True
        for event, names in events:
            self.feed(event, names)
        self._is_priming = False

    def feed(self, event: Event, names: Iterable[str]) -> None:
        """An event, and the rules whose query found it."""
        for name in names:
            rule = self._rules[name]
            if _passes(rule, self._world, event, None):
                self._matched(rule, Hit(rule.about, (event.id,), event.time_ms, 0, 1, [event]))

    def take(self) -> list[Hit]:
        """The hits since the last call, one for each cause."""
        hits, self._hits = list(self._hits.values()), {}
        return hits

    def forget(self, before_ms: int) -> None:
        """Lets go of groups that nothing has been heard of for so long that no window can reach them."""
        for groups in self._groups.values():
            limit = before_ms - 2 * groups.rule.span_ms
            for key in [key for key, window in groups.windows.items() if window.newest_ms < limit]:
                groups.size -= len(groups.windows.pop(key))

    def _matched(self, rule: Rule, hit: Hit) -> None:
        """A rule is satisfied, at the hit's ``start_ms``: a hit, if it alerts, and an event for those that count it."""
        if rule.alerts and not self._is_priming:
            self._keep(rule, hit)
        for groups, number in self._uses.get(rule.about.name, ()):
            self._count(groups, number, hit.events[-1]._replace(time_ms=hit.start_ms), rule.about.name)

    def _keep(self, rule: Rule, hit: Hit) -> None:
        bucket_ms = max(hit.span_ms, BUCKET_MS_MIN) if isinstance(rule, Correlation) else 1
        start_ms = hit.start_ms // bucket_ms * bucket_ms
        key = rule.about.name, hit.group, start_ms
        known = self._hits.get(key)
        if known is None and len(self._hits) >= HITS_MAX:
            self.left_out += 1
        elif known is None or hit.total > known.total:
            self._hits[key] = hit._replace(start_ms=start_ms)

    def _count(self, groups: _Groups, number: int, event: Event, name: str) -> None:
        rule = groups.rule
        key = _key(rule.keys[name], event)
        value = _value(rule, number, event)
        if key is None or value is None or self._is_late(groups, number, event):
            return
        in_order = rule.kind == "temporal_ordered"
        if in_order and number > 0 and key not in groups.windows:
            groups.newest_ms = max(groups.newest_ms, event.time_ms)
            return  # nothing that it could follow
        window = groups.window(key)
        before = len(window)
        window.add(value, event)
        window.forget(window.newest_ms - 2 * rule.span_ms)
        groups.size += len(window) - before
        groups.newest_ms = max(groups.newest_ms, event.time_ms)
        self.forgotten += groups.shrink()
        if in_order and number < len(rule.rules) - 1:
            return
        for end_ms in window.ends(event, rule.span_ms):
            found = window.found(rule, end_ms)
            if found and _passes(rule, self._world, found.events[-1], found.events[0]):
                self._matched(rule, Hit(rule.about, key, end_ms, rule.span_ms, found.total, found.events))

    def _is_late(self, groups: _Groups, number: int, event: Event) -> bool:
        """Whether an event came too late to be counted; the time that is to be read again is noted."""
        rule, newest_ms = groups.rule, groups.newest_ms
        begins = rule.kind == "temporal_ordered" and number < len(rule.rules) - 1
        if self._is_priming or event.time_ms >= newest_ms - (0 if begins else rule.span_ms):
            return False
        name, last_ms = rule.about.name, min(event.time_ms + rule.span_ms, newest_ms)
        spans = self.late.setdefault(name, [])
        if spans and spans[-1].first_ms <= event.time_ms <= spans[-1].last_ms:
            spans[-1] = spans[-1]._replace(last_ms=max(spans[-1].last_ms, last_ms))
        elif len(spans) < LATE_MAX:
            spans.append(Late(event.time_ms, last_ms))
        else:
            self.left_out += 1
        return True


def _passes(rule: Rule, world: World, event: Event, first: Event | None) -> bool:
    return all(check.holds(world, event, first) for check in rule.where) and not any(
        check.holds(world, event, first) for check in rule.unless
    )


def _key(fields: tuple[str, ...], event: Event) -> tuple[str, ...] | None:
    """The group of an event; none where one of the fields has no value."""
    values = tuple(event.facts.get(name, "").lower() for name in fields)
    return values if all(values) else None


def _value(rule: Correlation, number: int, event: Event) -> str | int | None:
    if rule.field is not None:
        value: Mapping[str, str] = event.facts
        return value.get(rule.field, "").lower() or None
    return "" if rule.kind == "event_count" else number


def roots(rules: Ruleset, name: str) -> set[str]:
    """The rules that are to be looked at again when one was fed too late: itself, if it alerts, and those that count it."""
    found = {name} if rules.rules[name].alerts else set()
    for rule in rules.correlations():
        if name in rule.rules:
            found |= roots(rules, rule.about.name)
    return found


def reach_ms(rules: Ruleset, name: str) -> int:
    """How far back a rule looks, those that it refers to included."""
    rule = rules.rules[name]
    if isinstance(rule, Events):
        return 0
    return rule.span_ms + max(reach_ms(rules, each) for each in rule.rules)
