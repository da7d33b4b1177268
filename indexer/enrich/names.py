"""Which fields are hidden, by their names."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import Final, Literal

from indexer.enrich.cache import Cache

NAMES_MAX: Final = 10_000
Choice = Literal["keep", "mask", "pseudonym"]


class Names:
    """Which fields are hidden, by their names: globs over a name in snake_case, or over a dotted path."""

    def __init__(self, mask: tuple[str, ...], pseudonyms: tuple[str, ...], secrets: tuple[str, ...]) -> None:
        rules: list[tuple[Choice, tuple[str, ...]]] = [("mask", mask), ("pseudonym", pseudonyms), ("mask", secrets)]
        self._rules = [
            (choice, re.compile("|".join(translate(_snake(glob)) for glob in globs))) for choice, globs in rules if globs
        ]
        self._cache: Cache[str, Choice] = Cache(NAMES_MAX)

    def choice(self, path: str) -> Choice:
        """What is done with the value of a field: of its own rules the first that names it decides, then the built-in ones."""
        return self._cache.get(path) or self._cache.find(path) or self._cache.put(path, self._make(path))

    def _make(self, path: str) -> Choice:
        path = _snake(path)
        name = path.rpartition(".")[2]
        return next((choice for choice, rule in self._rules if rule.match(name) or rule.match(path)), "keep")

    def is_pseudonymous(self, path: str) -> bool:
        """Whether a field by that very path is to be a pseudonym; its bare name is not enough."""
        return any(choice == "pseudonym" and rule.match(path) for choice, rule in self._rules)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").replace(" ", "_").lower()
