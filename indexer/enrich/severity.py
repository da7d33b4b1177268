"""How bad an event is, and what kind: by rules that are data.

The built-in rules are in ``severity.toml``, where their form is explained. A file of the operator's is tried before them, and
an organisation's own rules (``[[organization.severity]]``, :mod:`indexer.organizations`) before both. The first rule that
matches counts; one that nobody wrote a rule for is "info", or "warning" where it failed. A malformed file raises
:class:`~auditship.errors.ConfigurationError` that names the file, the rule, what was expected and what helps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate
from importlib.resources import as_file, files
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from msgspec import Struct, structs
from pydantic_settings import SettingsConfigDict

from auditship.errors import ConfigurationError
from auditship.line import Line
from auditship.settings import Settings, load
from indexer.document import EVENT_SEVERITY
from indexer.enrich.cache import Cache
from indexer.enrich.grant import Grant, granted
from indexer.enrich.rule import Kind, Rule, When, words
from indexer.enrich.rule import name as name_of

JUDGEMENTS_MAX: Final = 20_000
ORGANIZATIONS_MAX: Final = 100_000
BUILT_IN: Final = "built in"
OWN: Final = "organizations.toml"
_HINT: Final = "rule.0 is the first [[rule]] of the file. docs/enrichment.md has the form and an example."


class Judgement(Struct, frozen=True, gc=False):
    """A verdict over an event: ``number`` is ``event.severity``, ``action`` the action in lower case."""

    severity: str
    number: int
    reason: str | None
    category: tuple[str, ...]
    type: tuple[str, ...]
    action: str
    perhaps: tuple[tuple[Grants, Judgement], ...] = ()
    """What it is instead, if the line grants that: has to be looked at line by line."""

    def at_least(self, severity: str) -> Judgement:
        """The same verdict, but no milder than that."""
        number = EVENT_SEVERITY[severity]
        return self if self.number >= number else structs.replace(self, severity=severity, number=number)


class _File(Settings):
    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="AUDITSHIP_SEVERITY__")

    rule: tuple[Rule, ...] = ()
    kind: tuple[Kind, ...] = ()


class Grants(NamedTuple):
    """A condition on what a line grants."""

    role: re.Pattern[str]
    target: str | None

    def holds(self, grant: Grant) -> bool:
        """Whether that was granted."""
        return (self.target is None or grant.is_self) and any(self.role.match(role) for role in grant.roles)


class _Condition(NamedTuple):
    action: re.Pattern[str]
    status: str | None
    resource: re.Pattern[str] | None

    @classmethod
    def of(cls, rule: When) -> _Condition:
        return cls(_names(rule.action), rule.status, _names(rule.resource) if rule.resource else None)

    def holds(self, action: str, status: str, resource: str) -> bool:
        return (
            self.status in (None, status)
            and self.action.match(action) is not None
            and (self.resource is None or self.resource.match(resource) is not None)
        )


class Table:
    """The rules that hold for one organisation or many, in their order; the last of each list matches everything."""

    def __init__(self, rules: Iterable[tuple[str, Rule]], kinds: Iterable[Kind]) -> None:
        self.rules = tuple(rules)
        """Each with where it stands."""
        self._rules = [(_Condition.of(rule), _grants(rule), rule) for _, rule in self.rules]
        self._kinds = [(_Condition.of(kind), kind) for kind in kinds]
        self._cache: Cache[tuple[str, ...], Judgement] = Cache(JUDGEMENTS_MAX)

    def judging(self, action: str) -> Iterator[tuple[str, Rule]]:
        """The rules that can judge an action, in their order."""
        for (condition, grants, _), rule in zip(self._rules, self.rules, strict=True):
            if condition.action.match(name_of(action)):
                yield rule
                if condition.status is None and condition.resource is None and grants is None:
                    return

    def find(self, action: str, status: str, resource_type: str) -> Judgement:
        """The judgement of an event by what was done, how it ended, and the type of what was touched."""
        key = action, status, resource_type
        cache = self._cache
        return cache.get(key) or cache.find(key) or cache.put(key, self._make(*key))

    def _make(self, action: str, status: str, resource_type: str) -> Judgement:
        name, resource = name_of(action), name_of(resource_type)
        kind = next(kind for condition, kind in self._kinds if condition.holds(name, status, resource))
        perhaps: list[tuple[Grants, Judgement]] = []
        for condition, grants, rule in self._rules:
            if condition.holds(name, status, resource):
                reason = None if rule.severity == "info" else rule.reason
                number = EVENT_SEVERITY[rule.severity]
                judgement = Judgement(rule.severity, number, reason, kind.category, kind.type, action.lower())
                if grants is None:
                    return structs.replace(judgement, perhaps=tuple(perhaps))
                perhaps.append((grants, judgement))
        raise AssertionError("the last of the built-in rules matches everything")


class Severities:
    """The rules of one indexer, for every organisation.

    Args:
        table: what holds unless an organisation has rules of its own.
        kinds: for the organisations' tables.
        own: an organisation's own rules, by its id; none: nobody has any.
    """

    def __init__(
        self, table: Table, kinds: tuple[Kind, ...] = (), own: Callable[[str], tuple[Rule, ...]] | None = None
    ) -> None:
        self._table = table
        self._kinds = kinds
        self._own = own
        self._tables: dict[tuple[Rule, ...], Table] = {(): table}
        self._by_organization: Cache[str, Table] = Cache(ORGANIZATIONS_MAX)

    @classmethod
    def load(cls, path: Path | None, own: Callable[[str], tuple[Rule, ...]] | None = None) -> Severities:
        """The built-in rules, before them those of a file, and before these an organisation's own.

        Raises:
            ConfigurationError: the file is malformed.
        """
        with as_file(files(__package__).joinpath("severity.toml")) as built_in:
            ours = load(_File, built_in)
        try:
            theirs = load(_File, path) if path else _File()
        except ConfigurationError as error:
            raise ConfigurationError(error.what, error.hint or _HINT) from None
        kinds = theirs.kind + ours.kind
        theirs_at = path.name if path else ""
        rules = [*((theirs_at, rule) for rule in theirs.rule), *((BUILT_IN, rule) for rule in ours.rule)]
        return cls(Table(rules, kinds), kinds, own)

    def judge(self, line: Line, extra: bytes) -> Judgement:
        """The judgement of an event; ``extra`` is its other fields as a JSON object, or empty."""
        table = self._table if self._own is None else self.table(line.organization.id)
        found = table.find(line.action, line.status, line.resource.type)
        if not found.perhaps:
            return found
        grant = granted(line, extra)
        return next((judgement for grants, judgement in found.perhaps if grants.holds(grant)), found)

    def known(self, line: Line) -> Judgement | None:
        """The judgement of every event of that action, outcome and resource; none: it depends on what else a line says."""
        found = self._table.find(line.action, line.status, line.resource.type)
        return found if self._own is None and not found.perhaps else None

    def table(self, organization: str) -> Table:
        """The table that holds for an organisation."""
        found = self._by_organization.get(organization) or self._by_organization.find(organization)
        if found is None:
            rules = self._own(organization) if self._own else ()
            found = self._tables.get(rules)
            if found is None:
                found = self._tables[rules] = Table([*((OWN, rule) for rule in rules), *self._table.rules], self._kinds)
            self._by_organization.put(organization, found)
        return found


def _grants(rule: Rule) -> Grants | None:
    return Grants(_spelt(rule.role, words), rule.target) if rule.role else None


def _names(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return _spelt(patterns, name_of)


def _spelt(patterns: tuple[str, ...], spell: Callable[[str], str]) -> re.Pattern[str]:
    """Globs; a set such as ``[a-z]`` stays as it is."""
    return _globs(tuple(pattern.lower() if "[" in pattern else spell(pattern) for pattern in patterns))


def _globs(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern) for pattern in patterns))
