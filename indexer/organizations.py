"""Organisations' policies: how long each one's documents are kept.

``organizations.toml``, every table optional; ids may hold ``*``, the first that matches wins::

    [[organization]]
    id = "org-bank-*"
    retention = "365d"

Without a match the store's default holds. A malformed file raises
:class:`~auditship.errors.ConfigurationError` naming the file and the key.
"""

from __future__ import annotations

import re
from fnmatch import translate
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from auditship.settings import Section, Settings, load
from indexer.settings import Retention

_CACHED_MAX = 100_000


class Policy(Section):
    """One ``[[organization]]``."""

    id: str = Field(min_length=1)
    retention: Retention


class _File(Settings):
    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="AUDITSHIP_ORGANIZATIONS__")

    organization: tuple[Policy, ...] = ()


class Policies:
    """The retention class of each organisation's documents."""

    def __init__(self, policies: tuple[Policy, ...], default: str) -> None:
        self._patterns = [(re.compile(translate(policy.id)), policy.retention) for policy in policies]
        self._default = default
        self._cache: dict[str, str] = {}

    @classmethod
    def load(cls, path: Path | None, default: str) -> Policies:
        """From a file; none: the default for everybody."""
        return cls(() if path is None else load(_File, path).organization, default)

    @property
    def classes(self) -> list[str]:
        """Every retention class in use."""
        return sorted({self._default, *(retention for _, retention in self._patterns)})

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
