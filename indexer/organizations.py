"""Organisations' policies: how long each one's documents are kept, and how bad their events are.

``organizations.toml``, every table optional; ids may hold ``*``, the first that matches wins::

    [[organization]]
    id = "org-bank-*"
    retention = "365d"

    [[organization]]
    id = "org-7"
    legal_hold = true

    [[organization.severity]]
    action = ["project.read"]
    resource = ["vault"]
    severity = "critical"
    reason = "the vault was opened"

Severity rules have the form of ``enrich/severity.toml`` and are tried before it; for them the case of an id does not count.
Without a match, or without a ``retention``, the store's default holds. A legal hold suspends deletion: new documents go to the
class :data:`HOLD`, and segments that hold older ones are kept (:mod:`indexer.retention`). A malformed file raises
:class:`~auditship.errors.ConfigurationError` naming the file and the key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from pathlib import Path
from typing import ClassVar, Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from auditship.settings import Section, Settings, load
from indexer.enrich.severity import Rule
from indexer.settings import Retention

HOLD: Final = "36500d"
"""The retention class of documents under a legal hold: a hundred years, or until the hold is lifted."""
_CACHED_MAX = 100_000


class Policy(Section):
    """One ``[[organization]]``."""

    id: str = Field(min_length=1)
    retention: Retention | None = None
    legal_hold: bool = False
    severity: tuple[Rule, ...] = ()
    """Tried before the rules that hold for everybody."""


_NOBODY_S: Final = Policy(id="*")


class _File(Settings):
    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="AUDITSHIP_ORGANIZATIONS__")

    organization: tuple[Policy, ...] = ()


class Policies:
    """The retention class of each organisation's documents."""

    def __init__(self, policies: tuple[Policy, ...], default: str) -> None:
        self._policies = policies
        self._patterns = [(re.compile(translate(policy.id)), _class_of(policy, default)) for policy in policies]
        self._folded = [(re.compile(translate(policy.id.lower())), policy) for policy in policies]
        self._default = default
        self._cache: dict[str, str] = {}

    @classmethod
    def load(cls, path: Path | None, default: str) -> Policies:
        """From a file; none: the default for everybody."""
        return cls(() if path is None else load(_File, path).organization, default)

    @property
    def classes(self) -> list[str]:
        """Every retention class in use."""
        own = {policy.retention or self._default for policy in self._policies}
        return sorted({self._default, *own, *({HOLD} if self.has_holds else ())})

    @property
    def has_holds(self) -> bool:
        """Whether anybody is under a legal hold."""
        return any(policy.legal_hold for policy in self._policies)

    def policy(self, organization: str) -> Policy:
        """The policy of an organisation, whose id may come from a store, in lower case; with its retention filled in."""
        found = self.find(organization)
        return found.model_copy(update={"retention": found.retention or self._default})

    def find(self, organization: str) -> Policy:
        """The policy of an organisation as it was written, whatever the case of the id."""
        name = organization.lower()
        return next((policy for pattern, policy in self._folded if pattern.match(name)), _NOBODY_S)

    @property
    def severity(self) -> Callable[[str], tuple[Rule, ...]] | None:
        """An organisation's own severity rules, by its id; none, if nobody has any."""
        return (lambda name: self.find(name).severity) if any(policy.severity for policy in self._policies) else None

    def retention(self, organization: str) -> str:
        """The class, such as ``30d``, that an organisation's new documents are kept in."""
        if not self._patterns:
            return self._default
        if (known := self._cache.get(organization)) is not None:
            return known
        if len(self._cache) >= _CACHED_MAX:
            self._cache.clear()
        found = next((retention for pattern, retention in self._patterns if pattern.match(organization)), self._default)
        self._cache[organization] = found
        return found


def _class_of(policy: Policy, default: str) -> str:
    return HOLD if policy.legal_hold else policy.retention or default
