"""Counts events as rules say. Pure: events in, hits out; what checks ask of the world is given.

Events come by time; one that is later than another by no more than a rule's timespan is still counted rightly. Where what it
would be counted with may be gone (it is later than that, or older than what was read, or there was room for later ones alone),
or where it begins a row whose other events are past, its time is put into :attr:`Engine.late`: whoever feeds the engine reads
that again, with an engine of its own. It is remembered all the same, for what follows.

Memory is bounded: :data:`EVENTS_MAX` events for each rule; beyond it the groups that were quiet the longest are forgotten,
and :attr:`Engine.forgotten` counts them. A hit that others count is one event, and holds those that it was made of, which are
no more than its window had: what they agree in is asked for an alert alone.
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
    """The state of all correlations of a ruleset, and the hits found since they were last taken.

    Args:
        rules: what is counted.
        world: for checks.
        since_ms: the time before which it knows no more than what primes it.
    """

    def __init__(self, rules: Ruleset, world: World, since_ms: int = -(2**63)) -> None:
        self._rules = rules.rules
        self._world = world
        self._groups = {rule.about.name: _Groups(rule) for rule in rules.correlations()}
        self._uses: defaultdict[str, list[tuple[_Groups, int]]] = defaultdict(list)
        for groups in self._groups.values():
            for number, name in enumerate(groups.rule.rules):
                self._uses[name].append((groups, number))
        self._hits: dict[tuple[str, tuple[str, ...], int], Hit] = {}
        self._is_priming = False
        self._since_ms = since_ms
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
        """Lets go of groups that nothing has been heard of for so long that no window of that time can reach them."""
        self._since_ms = before_ms
        for groups in self._groups.values():
            limit = before_ms - 2 * groups.rule.span_ms
            for key in [key for key, window in groups.windows.items() if window.newest_ms < limit]:
                groups.size -= len(groups.windows.pop(key))

    def _matched(self, rule: Rule, hit: Hit) -> None:
        """A rule is satisfied, at the hit's ``start_ms``: a hit, if it alerts, and an event for those that count it."""
        if rule.alerts and not self._is_priming:
            self._keep(rule, hit)
        if uses := self._uses.get(rule.about.name):
            event = _as_event(hit)
            for groups, number in uses:
                self._count(groups, number, event, rule.about.name)

    def _keep(self, rule: Rule, hit: Hit) -> None:
        start_ms = _bucket(rule, hit.start_ms)
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
        if key is None or value is None:
            return
        in_order = rule.kind == "temporal_ordered"
        begins = in_order and number < len(rule.rules) - 1
        limit_ms = max(groups.newest_ms, self._since_ms) - rule.span_ms
        is_late = not self._is_priming and event.time_ms < (max(limit_ms, groups.newest_ms) if begins else limit_ms)
        if is_late:
            self._note(rule, event.time_ms)
        groups.newest_ms = max(groups.newest_ms, event.time_ms)
        if (is_late and event.time_ms < limit_ms - rule.span_ms) or (in_order and number > 0 and key not in groups.windows):
            return  # nothing that reaches back to it, or nothing that it could follow
        window = groups.window(key)
        before = len(window)
        window.add(value, event)
        window.forget(window.newest_ms - 2 * rule.span_ms)
        groups.size += len(window) - before
        self.forgotten += groups.shrink()
        if not is_late and not begins and not self._find(rule, key, window, event) and window.is_unsure(rule, event):
            self._note(rule, event.time_ms)

    def _find(self, rule: Correlation, key: tuple[str, ...], window: Window, event: Event) -> bool:
        """Makes hits of the windows that an event has a part in; whether that settles what there is to tell of its time."""
        is_settled = False
        for end_ms in window.ends(event, rule.span_ms):
            found = window.found(rule, end_ms)
            if found is None:
                continue
            passes = _passes(rule, self._world, found.events[-1], found.events[0])
            if passes:
                self._matched(rule, Hit(rule.about, key, end_ms, rule.span_ms, found.total, found.events))
            is_settled |= end_ms == event.time_ms or (passes and _bucket(rule, end_ms) == _bucket(rule, event.time_ms))
        return is_settled

    def _note(self, rule: Correlation, time_ms: int) -> None:
        """Notes the time that an event of a rule has a part in: it is to be read again."""
        spans, last_ms = self.late.setdefault(rule.about.name, []), time_ms + rule.span_ms
        if spans and spans[-1].first_ms <= time_ms <= spans[-1].last_ms:
            spans[-1] = spans[-1]._replace(last_ms=max(spans[-1].last_ms, last_ms))
        elif len(spans) < LATE_MAX:
            spans.append(Late(time_ms, last_ms))
        else:
            self.left_out += 1


def _bucket(rule: Rule, time_ms: int) -> int:
    """The beginning of the time in which a cause makes one hit."""
    bucket_ms = max(rule.span_ms, BUCKET_MS_MIN) if isinstance(rule, Correlation) else 1
    return time_ms // bucket_ms * bucket_ms


def _as_event(hit: Hit) -> Event:
    """A hit as those who count it see it."""
    *others, last = hit.events
    if not others:
        return last._replace(time_ms=hit.start_ms)
    return Event(hit.start_ms, last.id, last.facts, hit.events)


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
