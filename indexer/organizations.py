"""Organisations' policies: how long each one's documents are kept, how bad their events are, and what is hidden.

``organizations.toml``, every table optional; ids may hold ``*``, the first that matches wins::

    [[organization]]
    id = "org-bank-*"
    retention = "365d"

    [[organization]]
    id = "org-7"
    legal_hold = true
    verified_domains = ["example.com"]

    [[organization.severity]]
    action = ["project.read"]
    resource = ["vault"]
    severity = "critical"
    reason = "the vault was opened"

    [organization.privacy]
    pseudonyms = ["actor.id", "actor.name"]
    emails = "pseudonym"

Severity rules have the form of ``enrich/severity.toml`` and are tried before it; privacy is explained in
:class:`indexer.enrich.privacy.Privacy`, and ``pseudonym_key_file`` at the top of the file names its key. The case of an id
never counts: a store gives ids back in lower case.

Without a match, or without a ``retention``, the store's default holds. A legal hold suspends deletion: new documents go to the
class :data:`HOLD`, and segments that hold older ones are kept (:mod:`indexer.retention`). A malformed file raises
:class:`~auditship.errors.ConfigurationError` naming the file and the key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints
from pydantic_settings import SettingsConfigDict

from auditship.errors import ConfigurationError
from auditship.settings import FilePath, Section, Settings, load
from indexer.discretion import Discretion
from indexer.enrich.cache import Cache
from indexer.enrich.privacy import MAKE_KEY, Keyed, Masks, Privacy, read_key
from indexer.enrich.rule import Rule
from indexer.settings import Retention

Domain = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$", max_length=253)]
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
    privacy: Privacy | None = None
    """What is hidden before anything is stored; none: nothing."""
    verified_domains: tuple[Domain, ...] = Field(default=(), max_length=1000)
    """E-mail domains of the organisation's own people; none: any will do."""


_NOBODY_S: Final = Policy(id="*")


class _File(Settings):
    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="AUDITSHIP_ORGANIZATIONS__")

    pseudonym_key_file: FilePath | None = None
    organization: tuple[Policy, ...] = ()


class Policies:
    """The retention class of each organisation's documents."""

    def __init__(self, policies: tuple[Policy, ...], default: str, key_file: Path | None = None) -> None:
        self._policies = policies
        self._patterns = [(re.compile(translate(policy.id.lower())), policy) for policy in policies]
        self._default = default
        self._key_file = key_file
        self._cache: Cache[str, str] = Cache(_CACHED_MAX)

    @classmethod
    def load(cls, path: Path | None, default: str) -> Policies:
        """From a file; none: the default for everybody."""
        if path is None:
            return cls((), default)
        file = load(_File, path)
        if file.pseudonym_key_file is None and any(each.privacy and each.privacy.needs_key for each in file.organization):
            raise ConfigurationError(
                f"{path}: pseudonyms and hmac-sha-256 need a key, 'pseudonym_key_file' is missing", MAKE_KEY
            )
        return cls(file.organization, default, file.pseudonym_key_file)

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
        """The policy of an organisation, with its retention filled in."""
        found = self.find(organization)
        return found.model_copy(update={"retention": found.retention or self._default})

    def find(self, organization: str) -> Policy:
        """The policy of an organisation as it was written, whatever the case of the id."""
        name = organization.lower()
        return next((policy for pattern, policy in self._patterns if pattern.match(name)), _NOBODY_S)

    @property
    def severity(self) -> Callable[[str], tuple[Rule, ...]] | None:
        """An organisation's own severity rules, by its id; none, if nobody has any."""
        return (lambda name: self.find(name).severity) if any(policy.severity for policy in self._policies) else None

    def masks(self) -> Masks | None:
        """What hides values in lines; none, if nobody hides anything.

        Raises:
            ConfigurationError: the key cannot be read, is too short, or open to everybody.
        """
        if not any(policy.privacy for policy in self._policies):
            return None
        return Masks(lambda name: self.find(name).privacy, read_key(self._key_file) if self._key_file else b"")

    def discretion(self, own: str) -> Discretion | None:
        """What hides values in the record of questions; none, if nobody hides anything.

        A person who asks on the command line may not be able to read the key: then values are masked that would be pseudonyms.

        Args:
            own: the organisation that stands for many.
        """
        hiding = [(policy.id, policy.privacy) for policy in self._policies if policy.privacy]
        if not hiding:
            return None
        try:
            key = read_key(self._key_file) if self._key_file else b""
        except ConfigurationError:
            key = b""
        return Discretion(hiding, key, own, lambda name: self.find(name).privacy)

    def keyed(self, organization: str) -> Keyed:
        """An organisation's key.

        Raises:
            ConfigurationError: there is none, or as above.
        """
        if self._key_file is None:
            raise ConfigurationError("no 'pseudonym_key_file' is named in the organisations' policies", MAKE_KEY)
        return Keyed(read_key(self._key_file), organization)

    def verified_domains(self, organization: str) -> tuple[str, ...]:
        """The e-mail domains of an organisation's own people, in lower case; none: not known."""
        return self.find(organization).verified_domains

    def retention(self, organization: str) -> str:
        """The class, such as ``30d``, that an organisation's new documents are kept in."""
        if not self._patterns:
            return self._default
        if known := self._cache.get(organization) or self._cache.find(organization):
            return known
        policy = self.find(organization)
        return self._cache.put(organization, HOLD if policy.legal_hold else policy.retention or self._default)
