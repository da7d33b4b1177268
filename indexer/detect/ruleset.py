"""All rules of a detector: the built-in ones and an operator's own, with their references resolved.

A file that cannot be used is told and left out, with whatever needs it; it never stops the others. Rules that are disabled,
by name or Sigma id, make no alerts; others may still refer to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from indexer.detect.event import NETWORK, SUBJECT, WORDS, fields_in
from indexer.detect.rule import Correlation, Events, Rule, read
from indexer.detect.source import RuleError, documents, files
from indexer.detect.translate import test_of
from indexer.store.embedded.remembered import key_maker
from indexer.store.query import CLAUSES_MAX, TEXT_MAX, parse

BUILT_IN: Final = Path(__file__).parent / "rules"
RULES_MAX: Final = 500
DEPTH_MAX: Final = 5
KNOWN_MAX: Final = 50_000
_CHUNK_TEXT_MAX: Final = TEXT_MAX - 1_500
_CHUNK_CLAUSES_MAX: Final = CLAUSES_MAX - 50


@dataclass(frozen=True, slots=True)
class Chunk:
    """Several rules' events in one query over ``datasets``, and what tells which rules an event is for."""

    text: str
    datasets: tuple[str, ...]
    names_of: Callable[[Any], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Rules by name. ``problems`` are those that could not be used."""

    rules: Mapping[str, Rule]
    problems: tuple[RuleError, ...] = ()

    @classmethod
    def load(cls, own: Path | None = None, disabled: Collection[str] = ()) -> Ruleset:
        """The built-in rules and those of a folder."""
        found: dict[str, Rule] = {}
        problems: list[RuleError] = []
        for path in _paths(own, problems):
            try:
                rules = _of_file(path, disabled)
                for name in rules:
                    if name in found:
                        raise RuleError(
                            f"{path}: rule {name!r}: {found[name].about.file} has one of that name",
                            "Give it another name; a built-in rule is switched off under [detections] disabled.",
                        )
            except RuleError as error:
                problems.append(error)
                continue
            if len(found) + len(rules) > RULES_MAX:
                problems.append(RuleError(f"{path}: more than {RULES_MAX} rules in all", "Take some away."))
                break
            found |= rules
        problems += _leave_out_unresolved(found)
        whole = cls(_with_alerts(found))
        return cls(whole.only([rule.about.name for rule in whole.alerting()]).rules, tuple(problems))

    def alerting(self) -> list[Rule]:
        """The rules that make alerts, by name."""
        return sorted((rule for rule in self.rules.values() if rule.alerts), key=lambda rule: rule.about.name)

    def correlations(self) -> Iterator[Correlation]:
        """Those that count events (not silence)."""
        return (rule for rule in self.rules.values() if isinstance(rule, Correlation) and not rule.silence)

    def silences(self) -> Iterator[Correlation]:
        """Those that look for what is missing."""
        return (rule for rule in self.rules.values() if isinstance(rule, Correlation) and rule.silence)

    def only(self, names: Collection[str]) -> Ruleset:
        """These rules and those that they refer to, of which only these make alerts."""
        needed: dict[str, Rule] = {}
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in needed:
                rule = self.rules[name]
                needed[name] = rule if name in names else replace(rule, alerts=False)
                waiting += rule.rules if isinstance(rule, Correlation) else ()
        return Ruleset(needed)

    def fields(self) -> tuple[str, ...]:
        """Every field that the rules need of an event."""
        names: dict[str, None] = dict.fromkeys(SUBJECT)
        for rule in self.rules.values():
            names |= dict.fromkeys(each for each in fields_in(rule.about.reason) if each not in WORDS)
            names |= dict.fromkeys(each for check in (*rule.where, *rule.unless) for each in check.fields)
            if isinstance(rule, Correlation):
                names |= dict.fromkeys(each for keys in rule.keys.values() for each in keys)
                names |= dict.fromkeys([rule.field] if rule.field else [])
        return tuple(name for name in names if name != NETWORK)

    def chunks(self, names: Collection[str]) -> list[Chunk]:
        """The events of these rules in as few queries as their datasets and the language's limits allow."""
        queries: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        for name in sorted(names):
            rule = self.rules[name]
            assert isinstance(rule, Events)
            queries.setdefault(rule.datasets, []).append((name, rule.query))
        return [
            Chunk(" OR ".join(f"({query})" for _, query in part), datasets, _names_of(part))
            for datasets, group in queries.items()
            for part in _parts(group)
        ]

    def sought(self) -> list[str]:
        """The rules whose events are to be read: those that alert, and those that a correlation counts."""
        counted = {name for rule in self.correlations() for name in rule.rules}
        return [name for name, rule in self.rules.items() if isinstance(rule, Events) and (rule.alerts or name in counted)]


def _parts(queries: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Names and queries in parts, each of which makes one query."""
    part: list[tuple[str, str]] = []
    for name, query in queries:
        whole = " OR ".join(f"({each})" for _, each in [*part, (name, query)])
        if part and (len(whole) > _CHUNK_TEXT_MAX or _clauses(whole) > _CHUNK_CLAUSES_MAX):
            yield part
            part = []
        part.append((name, query))
    if part:
        yield part


def _names_of(queries: Sequence[tuple[str, str]]) -> Callable[[Any], tuple[str, ...]]:
    """Tells the names of the queries that find a document; remembers them by what of it they ask for."""
    tests = [(name, test_of(text)) for name, text in queries]
    key_of = key_maker(*(parse(text) for _, text in queries))
    known: dict[tuple[Any, ...], tuple[str, ...]] = {}

    def names_of(document: Any) -> tuple[str, ...]:
        key = key_of(document)
        names = known.get(key)
        if names is None:
            names = tuple(name for name, test in tests if test(document))
            if len(known) >= KNOWN_MAX:
                known.clear()
            known[key] = names
        return names

    return names_of


def _clauses(text: str) -> int:
    """At least as many as the language will count."""
    return text.count(":") + 2 * text.count("(") + 2 * text.count(" OR ") + 2 * text.count("NOT ")


def _paths(own: Path | None, problems: list[RuleError]) -> list[Path]:
    found = files(BUILT_IN)
    if own is not None:
        try:
            found += files(own)
        except RuleError as error:
            problems.append(error)
    return found


def _of_file(path: Path, disabled: Collection[str]) -> dict[str, Rule]:
    """A file's rules by name."""
    rules: dict[str, Rule] = {}
    for document in documents(path):
        rule = read(document, path)
        name = rule.about.name
        if name in rules:
            raise RuleError(f"{path}: rule {name!r} stands twice", "Give one of them another name.")
        if name in disabled or str(document.get("id")) in disabled:
            rule = replace(rule, alerts=False)
        rules[name] = rule
    return rules


def _leave_out_unresolved(found: dict[str, Rule]) -> list[RuleError]:
    """Takes away the files of rules that refer to what is not there, until all that is left can be used."""
    problems: list[RuleError] = []
    count = -1
    while count != len(problems):
        count = len(problems)
        for rule in list(found.values()):
            if isinstance(rule, Correlation) and rule.about.name in found:
                try:
                    _check_references(rule, found)
                except RuleError as error:
                    problems.append(error)
                    for name in [name for name, each in found.items() if each.about.file == rule.about.file]:
                        del found[name]
    return problems


def _check_references(rule: Correlation, known: Mapping[str, Rule]) -> None:
    """Passes a correlation whose rules are there, and refer to each other in no circle."""
    level: Sequence[str] = rule.rules
    for _ in range(DEPTH_MAX):
        for name in level:
            referred = known.get(name)
            if referred is None:
                raise RuleError(
                    f"{rule.about.file}: rule {rule.about.name!r}: there is no rule {name!r}",
                    "Refer to a rule's name, of this file or another one.",
                )
            if isinstance(referred, Correlation) and referred.silence:
                raise RuleError(f"{rule.about.file}: rule {rule.about.name!r}: silence cannot be counted")
            if isinstance(referred, Correlation) and rule.silence:
                raise RuleError(f"{rule.about.file}: rule {rule.about.name!r}: silence is that of events, not of rules")
            if rule.silence and isinstance(referred, Events) and referred.datasets:
                raise RuleError(
                    f"{rule.about.file}: rule {rule.about.name!r}: silence is that of gateways, not of agents",
                    "Alerting tells of silent agents by itself.",
                )
        level = [each for name in level if isinstance(known[name], Correlation) for each in _references(known[name])]
        if not level:
            return
    raise RuleError(f"{rule.about.file}: rule {rule.about.name!r}: refers to itself, or too deeply", "Refer to events.")


def _references(rule: Rule) -> tuple[str, ...]:
    return rule.rules if isinstance(rule, Correlation) else ()


def _with_alerts(rules: dict[str, Rule]) -> dict[str, Any]:
    """Rules that a correlation refers to make no alerts by themselves, unless it says ``generate``."""
    quiet: set[str] = set()
    loud: set[str] = set()
    for rule in rules.values():
        if isinstance(rule, Correlation):
            (loud if rule.generates else quiet).update(rule.rules)
    return {name: replace(rule, alerts=rule.alerts and (name not in quiet or name in loud)) for name, rule in rules.items()}
