"""How bad an event is, and what kind: by rules that are data.

The built-in rules are in ``severity.toml``; a file of the operator's in the same form is tried first. The first rule that
matches counts. A malformed file raises :class:`~auditship.errors.ConfigurationError` that names the file, the rule and the key.
"""

from __future__ import annotations

import re
from fnmatch import translate
from importlib.resources import as_file, files
from pathlib import Path
from typing import ClassVar, Final, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from auditship.settings import Section, Settings, load
from indexer.document import EVENT_SEVERITY
from indexer.enrich.cache import Cache

JUDGEMENTS_MAX: Final = 20_000
Category = Literal[
    "api", "authentication", "configuration", "database", "email", "file", "host", "iam", "intrusion_detection", "network",
    "package", "process", "session", "threat", "vulnerability", "web",
]  # fmt: skip
Type = Literal[
    "access", "admin", "allowed", "change", "connection", "creation", "deletion", "denied", "end", "error", "group", "info",
    "installation", "start", "user",
]  # fmt: skip
Severity = Literal["info", "warning", "critical"]


class Judgement(Struct, frozen=True, gc=False):
    """A verdict over an event: ``number`` is ``event.severity``, ``action`` the action in lower case."""

    severity: str
    number: int
    reason: str | None
    category: tuple[str, ...]
    type: tuple[str, ...]
    action: str

    def at_least(self, severity: str) -> Judgement:
        """The same verdict, but no milder than that."""
        number = EVENT_SEVERITY[severity]
        return self if self.number >= number else replace(self, severity=severity, number=number)


class Rule(Section):
    """One ``[[rule]]``."""

    action: tuple[str, ...] = Field(min_length=1)
    status: Literal["success", "failure"] | None = None
    resource: tuple[str, ...] = ()
    severity: Severity
    reason: str | None = Field(default=None, max_length=200)


class Kind(Section):
    """One ``[[kind]]``: ``event.category`` and ``event.type``."""

    action: tuple[str, ...] = Field(min_length=1)
    status: Literal["success", "failure"] | None = None
    resource: tuple[str, ...] = ()
    category: tuple[Category, ...] = Field(min_length=1)
    type: tuple[Type, ...] = Field(min_length=1)


class _File(Settings):
    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="AUDITSHIP_SEVERITY__")

    rule: tuple[Rule, ...] = ()
    kind: tuple[Kind, ...] = ()


class _Condition(NamedTuple):
    action: re.Pattern[str]
    status: str | None
    resource: re.Pattern[str] | None

    @classmethod
    def of(cls, rule: Rule | Kind) -> _Condition:
        return cls(_globs(rule.action), rule.status, _globs(rule.resource) if rule.resource else None)

    def holds(self, action: str, status: str, resource: str) -> bool:
        return (
            self.status in (None, status)
            and self.action.match(action) is not None
            and (self.resource is None or self.resource.match(resource) is not None)
        )


class Severities:
    """The rules of one indexer; the built-in ones stand last and match everything."""

    def __init__(self, rules: tuple[Rule, ...], kinds: tuple[Kind, ...]) -> None:
        self._rules = [(_Condition.of(rule), rule) for rule in rules]
        self._kinds = [(_Condition.of(kind), kind) for kind in kinds]
        self._cache: Cache[tuple[str, ...], Judgement] = Cache(JUDGEMENTS_MAX)

    @classmethod
    def load(cls, path: Path | None) -> Severities:
        """The built-in rules, and before them those of a file."""
        with as_file(files(__package__).joinpath("severity.toml")) as built_in:
            ours = load(_File, built_in)
        theirs = load(_File, path) if path else _File()
        return cls(theirs.rule + ours.rule, theirs.kind + ours.kind)

    def judge(self, action: str, outcome: str, resource_type: str) -> Judgement:
        """The judgement of an event: what was done, ``success`` or ``failure``, and the type of what was touched."""
        key = action, outcome, resource_type
        cache = self._cache
        return cache.get(key) or cache.find(key) or cache.put(key, self._make(action.lower(), outcome, resource_type.lower()))

    def _make(self, action: str, outcome: str, resource: str) -> Judgement:
        rule = next(rule for condition, rule in self._rules if condition.holds(action, outcome, resource))
        kind = next(kind for condition, kind in self._kinds if condition.holds(action, outcome, resource))
        reason = None if rule.severity == "info" else rule.reason
        return Judgement(rule.severity, EVENT_SEVERITY[rule.severity], reason, kind.category, kind.type, action)


def _globs(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern.lower()) for pattern in patterns))
