"""Rules, as they are once loaded: what is said of a detection, the events it looks for, and how they are counted.

A file's document becomes an :class:`Events` (a Sigma rule: which events) or a :class:`Correlation` (how many of them, of
whom, in what time). What Sigma cannot say stands under ``auditship:``:

=================  ==========================================================================================
``reason``         the alert's sentence; ``{count}``, ``{span}``, ``{actor}``, ``{event.action}`` and other fields
``where``          further conditions on each event, all of which must hold (:mod:`~indexer.detect.check`)
``unless``         conditions none of which may hold
``per_value_max``  in a ``value_count``: a value with more events than that does not count
``silence``        true in an ``event_count`` with ``lt: 1``: finds gateways that say nothing while others speak
=================  ==========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sigma.correlations import SigmaCorrelationRule
from sigma.exceptions import SigmaError

from indexer.detect.check import Check, read_checks
from indexer.detect.event import NETWORK, WORDS, fields_in
from indexer.detect.source import RuleError
from indexer.detect.translate import Untranslatable, check_field, datasets_of, query_of

Severity = Literal["info", "warning", "critical"]
Kind = Literal["event_count", "value_count", "temporal", "temporal_ordered"]
KINDS: Final = ("event_count", "value_count", "temporal", "temporal_ordered")
SPAN_MS_MAX: Final = 7 * 86_400_000
REFERENCES_MAX: Final = 10
COUNT_MAX: Final = 10_000
OURS: Final = ("reason", "where", "unless", "per_value_max", "silence")
_LEVELS: Final[Mapping[str, Severity]] = {
    "critical": "critical", "high": "critical", "medium": "warning", "low": "info", "informational": "info",
}  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_TECHNIQUE = re.compile(r"attack\.(t\d{4}(?:\.\d{3})?)")


@dataclass(frozen=True, slots=True)
class About:
    """What is said of a rule: ``name`` is its own among all rules, ``techniques`` are ATT&CK's (``T1110.003``)."""

    name: str
    title: str
    description: str
    severity: Severity
    reason: str
    false_positives: tuple[str, ...]
    techniques: tuple[str, ...]
    file: Path


@dataclass(frozen=True, slots=True)
class Events:
    """A rule that single events satisfy; ``alerts`` if each of them is a hit by itself.

    ``datasets``: where its events are; none: with all gateways'.
    """

    about: About
    query: str
    datasets: tuple[str, ...] = ()
    where: tuple[Check, ...] = ()
    unless: tuple[Check, ...] = ()
    alerts: bool = True


@dataclass(frozen=True, slots=True)
class Correlation:
    """A rule over several events within ``span_ms``, of those that agree in ``group_by``.

    ``keys`` has, for each of ``rules``, the fields that ``group_by`` means there. ``field`` is the one whose values are
    counted, in a ``value_count``.
    """

    about: About
    kind: Kind
    rules: tuple[str, ...]
    group_by: tuple[str, ...]
    keys: Mapping[str, tuple[str, ...]]
    span_ms: int
    count: int
    field: str | None = None
    per_value_max: int | None = None
    silence: bool = False
    where: tuple[Check, ...] = ()
    unless: tuple[Check, ...] = ()
    alerts: bool = True
    generates: bool = False


Rule = Events | Correlation


def read(document: Mapping[str, Any], file: Path) -> Rule:
    """A document of a rule file as a rule; references are not looked at yet.

    Raises:
        RuleError: naming the file, the rule and the remedy.
    """
    name = document.get("name")
    shown = name if isinstance(name, str) else str(document.get("title", "a rule without a title"))[:80]
    try:
        about = _about(document, file)
        ours = document.get("auditship", {})
        where, unless = read_checks(ours.get("where")), read_checks(ours.get("unless"))
        if "correlation" in document:
            return _correlation(document, about, where, unless)
        if "detection" not in document:
            raise Untranslatable("neither a detection nor a correlation", "See the Sigma specification.")
        if any(check.needs_first for check in (*where, *unless)):
            raise Untranslatable("a condition that needs an earlier event", "It goes with a temporal_ordered correlation.")
        for key in ("per_value_max", "silence"):
            if key in ours:
                raise Untranslatable(f"auditship.{key} is a correlation's", "Move it there.")
        datasets = datasets_of(document.get("logsource"))
        return Events(about, query_of(dict(document)), datasets, where, unless)
    except Untranslatable as error:
        raise RuleError(f"{file}: rule {shown!r}: {error}", error.instead) from None


def _about(document: Mapping[str, Any], file: Path) -> About:
    name, title, level = document.get("name"), document.get("title"), document.get("level", "medium")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Untranslatable("it has no name that can be used", "Write name: failed-login-burst, in a-z, 0-9, _ and -.")
    if not isinstance(title, str) or not 0 < len(title) <= 256:  # noqa: PLR2004 - Sigma's own limit
        raise Untranslatable("it has no title", "Write title: with up to 256 characters.")
    if level not in _LEVELS:
        raise Untranslatable(f"the level {level!r:.40} is not known", f"Write one of {', '.join(_LEVELS)}.")
    ours = document.get("auditship", {})
    if not isinstance(ours, dict) or any(key not in OURS for key in ours):
        raise Untranslatable("a key under auditship: is not known", f"Known are {', '.join(OURS)}.")
    reason = ours.get("reason", title)
    if not isinstance(reason, str) or len(reason) > 400:  # noqa: PLR2004 - a sentence
        raise Untranslatable("auditship.reason is not a sentence of up to 400 characters")
    for each in fields_in(reason):
        if each not in WORDS:
            check_field(each)
    return About(
        name=name,
        title=title,
        description=" ".join(str(document.get("description", "")).split())[:1000],
        severity=_LEVELS[level],
        reason=reason,
        false_positives=_texts(document, "falsepositives"),
        techniques=tuple(found[1].upper() for tag in _texts(document, "tags") if (found := _TECHNIQUE.fullmatch(tag))),
        file=file,
    )


def _texts(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) and len(each) <= 400 for each in value):  # noqa: PLR2004
        raise Untranslatable(f"{key} is not a list of texts")
    return tuple(value)


def _correlation(document: Mapping[str, Any], about: About, where: tuple[Check, ...], unless: tuple[Check, ...]) -> Correlation:
    try:
        sigma = SigmaCorrelationRule.from_dict(dict(document))
        kind = sigma.type.name.lower()
    except SigmaError as error:
        raise Untranslatable(str(error), "See the Sigma specification of correlations.") from None
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise Untranslatable(f"not a Sigma correlation: {error}", "See the Sigma specification.") from None
    if kind not in KINDS:
        raise Untranslatable(f"the correlation {kind} is not taken", f"Taken are {', '.join(KINDS)}.")
    rules = tuple(each.reference for each in sigma.rules or ())
    if not 0 < len(rules) <= REFERENCES_MAX or not all(isinstance(each, str) for each in rules):
        raise Untranslatable(f"it names no rules, or more than {REFERENCES_MAX}", "Write rules: with their names.")
    span_ms = sigma.timespan.seconds * 1000
    if span_ms > SPAN_MS_MAX:
        raise Untranslatable("its timespan is longer than 7 days", "Count a shorter time.")
    ours = document.get("auditship", {})
    counted, silence = _condition(sigma, ours)
    if any(check.needs_first for check in (*where, *unless)) and kind != "temporal_ordered":
        raise Untranslatable("a condition that needs an earlier event", "It goes with a temporal_ordered correlation.")
    if kind == "temporal_ordered" and counted != len(rules):
        raise Untranslatable("a row of events needs all of them", "Leave the condition out.")
    group_by = tuple(sigma.group_by or ())
    return Correlation(
        about=about,
        kind=kind,  # type: ignore[arg-type]  # one of KINDS
        rules=rules,
        group_by=group_by,
        keys=_keys(sigma, rules, group_by),
        span_ms=span_ms,
        count=counted,
        field=_counted_field(sigma, kind),
        per_value_max=_per_value_max(ours, kind),
        silence=silence,
        where=where,
        unless=unless,
        generates=sigma.generate,
    )


def _condition(sigma: SigmaCorrelationRule, ours: Mapping[str, Any]) -> tuple[int, bool]:
    """How many are needed, and whether it is their absence that is looked for."""
    condition = sigma.condition
    op = getattr(getattr(condition, "op", None), "name", "a condition in words").lower()
    count = getattr(condition, "count", 0)
    if ours.get("silence") is True:
        alone = sigma.group_by == ["audit.gateway"] and sigma.type.name == "EVENT_COUNT"
        if (op, count) != ("lt", 1) or not alone:
            raise Untranslatable("silence is counted otherwise", "Write an event_count by audit.gateway with lt: 1.")
        return 1, True
    if op == "gt":
        op, count = "gte", count + 1
    if op != "gte" or not 1 <= count <= COUNT_MAX:
        raise Untranslatable(f"the condition {op}: {count} is not taken", f"Write gte: with 1 to {COUNT_MAX}.")
    return count, False


def _keys(sigma: SigmaCorrelationRule, rules: tuple[str, ...], group_by: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The fields that ``group-by`` means in each rule: itself, or what an alias says."""
    keys: dict[str, tuple[str, ...]] = {}
    aliases = {each.alias: {ref.reference: name for ref, name in each.mapping.items()} for each in sigma.aliases}
    for rule in rules:
        found = []
        for name in group_by:
            meant = aliases.get(name, {}).get(rule) if name in aliases else name
            if not isinstance(meant, str):
                raise Untranslatable(f"the alias {name!r} says nothing of {rule!r}", "Give a field for each of the rules.")
            if meant != NETWORK:
                check_field(meant)
            found.append(meant)
        keys[rule] = tuple(found)
    return keys


def _counted_field(sigma: SigmaCorrelationRule, kind: str) -> str | None:
    if kind != "value_count":
        return None
    name = getattr(sigma.condition, "fieldref", None)
    if not isinstance(name, str):
        raise Untranslatable("a value_count counts the values of one field", "Write condition: {field: user.id, gte: 5}.")
    if name != NETWORK:
        check_field(name)
    return name


def _per_value_max(ours: Mapping[str, Any], kind: str) -> int | None:
    value = ours.get("per_value_max")
    if value is None:
        return None
    if kind != "value_count" or type(value) is not int or not 1 <= value <= 1000:  # noqa: PLR2004
        raise Untranslatable("per_value_max goes with a value_count, and is 1 to 1000")
    return value
