"""Runs the detections over a store: what has arrived since the last run, or a span of time.

Promises: an event that is stored is looked at once it has arrived, however late it is by its own time; a cause that is there
makes one alert, however often it is found, also across crashes: the cursor moves after the alerts are stored, and their ids
follow from what was found. What cannot be done now (:class:`~indexer.store.contract.Unavailable`) is done by the next run.

After the clock was ahead it begins anew, with what arrives from then on.

Each run reads back :data:`OVERLAP_MS` of arrivals: what was stored by another worker, or could not be seen yet, is seen then.
An event that came too late for the counts in memory has its time read again, with counts of its own.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

from indexer.detect.alert import entry_of
from indexer.detect.check import World
from indexer.detect.cursor import Cursor
from indexer.detect.engine import Engine, Hit, reach_ms, roots
from indexer.detect.event import Event, event_of
from indexer.detect.networks import Networks
from indexer.detect.rule import Correlation, Events
from indexer.detect.ruleset import Chunk, Ruleset
from indexer.detect.silence import MINUTE_MS, Heard, spoken
from indexer.detect.span import Span
from indexer.document import Entry
from indexer.organizations import Policies
from indexer.store.body import document_of
from indexer.store.contract import Reader, Refused, Verdict, Writer

OVERLAP_MS: Final = 120_000
ARRIVALS_MS_MAX: Final = 3_600_000
"""Arrivals of one run; a detector that was stopped catches up in several."""
SEEN_MAX: Final = 200_000
TOLD_MAX: Final = 20_000
HEARD_MS_MAX: Final = 24 * 3_600_000
"""Further back nobody's silence is looked for."""

_log = logging.getLogger("auditship.detect")
_Found = tuple[Event, tuple[str, ...]]


class Detector:
    """One detector.

    Args:
        rules: what is looked for.
        reader: the store.
        writer: where alerts go; none: they are found, and not stored.
        cursor: how far it has come; only :meth:`run_once` needs it.
        clock_ms: the wall clock.
        policies: of the organisations: how long alerts are kept, verified domains.
    """

    def __init__(
        self,
        rules: Ruleset,
        reader: Reader,
        *,
        writer: Writer | None,
        cursor: Cursor | None,
        clock_ms: Callable[[], int],
        policies: Policies,
    ) -> None:
        self._rules = rules
        self._reader = reader
        self._writer = writer
        self._cursor = cursor
        self._clock_ms = clock_ms
        self._policies = policies
        self._world = World(policies.verified_domains, Networks(reader).has)
        self._engine: Engine | None = None
        self._heard = Heard()
        self._known_chunks: dict[frozenset[str], list[Chunk]] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._told: OrderedDict[str, None] = OrderedDict()
        self._runner = asyncio.Runner()

    def run_once(self) -> list[Entry]:
        """Looks at what has arrived since the last run; the alerts that are new in the store.

        Raises:
            Unavailable: the store cannot answer now, or the cursor not be moved; the next run begins where this one did.
        """
        assert self._cursor is not None
        now_ms = self._clock_ms()
        arrived_ms = now_ms if self._cursor.arrived_ms is None else self._cursor.arrived_ms
        if arrived_ms > now_ms:  # the clock was ahead: what is remembered is of times that are still to come
            arrived_ms, self._engine, self._heard = now_ms, None, Heard()
        since_ms = arrived_ms - OVERLAP_MS
        until_ms = min(now_ms, since_ms + OVERLAP_MS + ARRIVALS_MS_MAX)
        engine = self._engine
        if engine is None:
            engine = self._primed(self._rules, since_ms)
            self._seen.clear()
        self._engine = None  # one that is left in the middle is made anew
        seen: list[str] = []
        arrived = Span(since_ms, until_ms, by_arrival=True)
        for event, names in self._found(self._rules, self._rules.sought(), arrived):
            if event.id not in self._seen:
                engine.feed(event, names)
                seen.append(event.id)
        hits = engine.take() + self._again(engine, until_ms) + self._silent(arrived, self._heard)
        entries = self._stored(hits)
        self._cursor.move(until_ms)
        self._remember(self._seen, seen, SEEN_MAX)
        engine.forget(since_ms)
        self._engine = engine
        return entries

    @property
    def is_behind(self) -> bool:
        """Whether another run would find more at once."""
        arrived_ms = self._cursor.arrived_ms if self._cursor else None
        return arrived_ms is not None and self._clock_ms() - arrived_ms > ARRIVALS_MS_MAX

    @property
    def lag_s(self) -> float:
        """How long ago that arrived up to which everything was looked at; 0 before the first run."""
        arrived_ms = self._cursor.arrived_ms if self._cursor else None
        return 0.0 if arrived_ms is None else max(0.0, (self._clock_ms() - arrived_ms) / 1000)

    def run_over(self, since_ms: int, until_ms: int) -> list[Entry]:
        """The alerts of a span of time, by the events' own time; stored if there is a writer."""
        hits = self._hits(self._rules, Span(since_ms, until_ms))
        hits += self._silent(Span(since_ms, until_ms), Heard())
        if self._writer is not None:
            return self._stored(hits)
        return sorted(self._entries(hits), key=lambda entry: entry.time_ms)

    def close(self) -> None:
        """Lets go of the writer and the cursor."""
        if self._writer is not None:
            self._runner.run(self._writer.close())
        self._runner.close()
        if self._cursor is not None:
            self._cursor.close()

    def _hits(self, rules: Ruleset, span: Span) -> list[Hit]:
        """What these rules find in a span of time, with counts of their own."""
        engine = self._primed(rules, span.since_ms)
        for event, names in self._found(rules, rules.sought(), span):
            engine.feed(event, names)
        self._complain(engine)
        return engine.take()

    def _again(self, engine: Engine, until_ms: int) -> list[Hit]:
        """Hits in times of which events came too late; not in what is still to be looked at."""
        late, engine.late = engine.late, {}
        self._complain(engine)
        hits: list[Hit] = []
        for name, spans in late.items():
            if names := roots(self._rules, name):
                rules = self._rules.only(names)
                reach = max(reach_ms(self._rules, each) for each in names) - reach_ms(self._rules, name)
                for each in spans:
                    hits += self._hits(rules, Span(each.first_ms, min(each.last_ms + reach + 1, until_ms)))
        return hits

    def _primed(self, rules: Ruleset, since_ms: int) -> Engine:
        """An engine that knows what rules need to know of the time before."""
        engine = Engine(rules, self._world, since_ms)
        back: defaultdict[int, set[str]] = defaultdict(set)
        for name, reach in _reaches(rules).items():
            back[reach].add(name)
        scans = [
            self._found(rules, names, Span(since_ms - 2 * reach, since_ms)) for reach, names in sorted(back.items()) if reach
        ]
        engine.prime(heapq.merge(*scans, key=lambda each: each[0].time_ms))
        return engine

    def _found(self, rules: Ruleset, names: Collection[str], span: Span) -> Iterator[_Found]:
        """Events that these rules look for, by time, each with the rules that found it."""
        fields = rules.fields()
        scans = [self._scan(chunk, fields, span) for chunk in self._chunks(rules, frozenset(names))]
        return heapq.merge(*scans, key=lambda each: each[0].time_ms)

    def _chunks(self, rules: Ruleset, names: frozenset[str]) -> list[Chunk]:
        """The queries for these rules; those of all rules, which every run needs, are made once."""
        if rules is not self._rules:
            return rules.chunks(names)
        if names not in self._known_chunks:
            self._known_chunks[names] = rules.chunks(names)
        return self._known_chunks[names]

    def _scan(self, chunk: Chunk, fields: Sequence[str], span: Span) -> Iterator[_Found]:
        for hit in self._reader.scan(span.query(chunk.text, chunk.datasets)):
            document = document_of(hit.body)
            if names := chunk.names_of(document):
                yield event_of(hit, document, fields), names

    def _silent(self, span: Span, heard: Heard) -> list[Hit]:
        """Gateways that are silent at some minute of a span of time: of arrivals, or of the events' own time."""
        rules = list(self._rules.silences())
        if not rules:
            return []
        longest = max(rule.span_ms for rule in rules)
        since_ms = max(heard.until_ms or span.since_ms - 2 * longest - MINUTE_MS, span.until_ms - HEARD_MS_MAX)
        hits: dict[tuple[str, str, int], Hit] = {}
        for minute_ms, gateways in spoken(self._reader, span._replace(since_ms=since_ms)):
            heard.add(minute_ms, gateways)
            for rule in rules:
                for silent in heard.silent(rule.span_ms):
                    event = Event(silent.last_ms, "", {"audit.gateway": silent.gateway})
                    hit = Hit(rule.about, (silent.gateway,), silent.last_ms, rule.span_ms, 0, [event])
                    hits.setdefault((rule.about.name, silent.gateway, silent.last_ms), hit)
        return list(hits.values())

    def _stored(self, hits: Sequence[Hit]) -> list[Entry]:
        """Stores the alerts of hits; those that were not there yet, by time."""
        entries = [entry for entry in self._entries(hits) if entry.id not in self._told]
        if not entries:
            return []
        assert self._writer is not None
        verdicts = self._runner.run(self._append(self._writer, entries))
        created = []
        for entry, verdict in zip(entries, verdicts, strict=True):
            if isinstance(verdict, Refused):
                _log.error("alert %s of %s was refused by the store: %s", entry.id, entry.dataset, verdict.reason)
            elif verdict is Verdict.CREATED:
                created.append(entry)
        self._remember(self._told, [entry.id for entry in entries], TOLD_MAX)
        return sorted(created, key=lambda entry: entry.time_ms)

    def _entries(self, hits: Sequence[Hit]) -> Collection[Entry]:
        """The alerts of hits, each once."""
        now_ms = self._clock_ms()
        return {entry.id: entry for entry in (entry_of(hit, self._policies.retention, now_ms) for hit in hits)}.values()

    async def _append(self, writer: Writer, entries: Sequence[Entry]) -> Sequence[Any]:
        return await writer.append(entries, redelivered=True)

    @staticmethod
    def _remember(known: OrderedDict[str, None], new: Sequence[str], most: int) -> None:
        known.update(dict.fromkeys(new))
        while len(known) > most:
            known.popitem(last=False)

    @staticmethod
    def _complain(engine: Engine) -> None:
        if engine.forgotten:
            _log.warning("too much at once: %d groups of events were forgotten before their time", engine.forgotten)
            engine.forgotten = 0
        if engine.left_out:
            _log.warning("too many hits at once: %d alerts were left out", engine.left_out)
            engine.left_out = 0


def _reaches(rules: Ruleset) -> dict[str, int]:
    """How far back events are to be read before the first run, by rule; not those that end a row: nothing follows them."""
    reaches: dict[str, int] = {}

    def visit(name: str, reach: int) -> None:
        rule = rules.rules[name]
        if isinstance(rule, Events):
            reaches[name] = max(reach, reaches.get(name, 0))
        else:
            for each in _remembered(rule):
                visit(each, reach + rule.span_ms)

    for rule in rules.correlations():
        for each in _remembered(rule):
            visit(each, rule.span_ms)
    return reaches


def _remembered(rule: Correlation) -> tuple[str, ...]:
    return rule.rules[:-1] if rule.kind == "temporal_ordered" else rule.rules
