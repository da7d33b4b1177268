"""Which fields are hidden, by their names.

Gateways write one name in many ways. A glob names a field in snake_case however that is written: ``access_key`` is
``accessKey``, ``Access-Key`` and ``accesskey``; ``password`` is ``passWord``, too. Where a name's words are put together for
that, what a glob says has to begin with one of them: ``*iban*`` is not in ``uiBanner``.
"""

from __future__ import annotations

import re
from fnmatch import translate
from itertools import accumulate
from typing import Final, Literal, NamedTuple

from indexer.enrich.cache import Cache

NAMES_MAX: Final = 10_000
Choice = Literal["keep", "mask", "pseudonym"]


class Names:
    """Which fields are hidden, by their names: globs over a name, or over a dotted path."""

    def __init__(self, mask: tuple[str, ...], pseudonyms: tuple[str, ...], secrets: tuple[str, ...]) -> None:
        rules: list[tuple[Choice, tuple[str, ...]]] = [("mask", mask), ("pseudonym", pseudonyms), ("mask", secrets)]
        self._rules = [(choice, [_Glob(snake(glob)) for glob in globs]) for choice, globs in rules]
        self._may_be_named = re.compile("|".join(glob.hint for _, globs in self._rules for glob in globs)).search
        self._cache: Cache[str, Choice] = Cache(NAMES_MAX)

    def choice(self, path: str) -> Choice:
        """What is done with the value of a field: of its own rules the first that names it decides, then the built-in ones."""
        return self._cache.get(path) or self._cache.find(path) or self._cache.put(path, self._make(path))

    def _make(self, path: str) -> Choice:
        path = snake(path)
        if not self._may_be_named("." + path.replace("_", "")):
            return "keep"
        names = [_Name.of(path.rpartition(".")[2]), _Name.of(path)]
        return next(
            (choice for choice, globs in self._rules if any(glob.names(name) for glob in globs for name in names)), "keep"
        )

    def is_pseudonymous(self, path: str) -> bool:
        """Whether a field by that very path is to be a pseudonym; its bare name is not enough."""
        name = _Name.of(path)
        return any(choice == "pseudonym" and any(glob.names(name) for glob in globs) for choice, globs in self._rules)


def snake(name: str) -> str:
    """A name in snake_case, as far as its upper and lower case tell where words begin."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").replace(" ", "_").lower()


class _Name(NamedTuple):
    text: str
    together: str
    """Without the ``_`` between its words."""
    begins: frozenset[int]
    """Where in that words begin."""

    @classmethod
    def of(cls, text: str) -> _Name:
        words = re.findall(r"[^_.]*[_.]?", text)
        ends = accumulate(len(word.removesuffix("_")) for word in words)
        return cls(text, text.replace("_", ""), frozenset((0, *ends)))


class _Glob:
    """A glob of names. Nearly all are plain: a name between stars, or not."""

    def __init__(self, glob: str) -> None:
        self._plain = glob.strip("*")
        self._is_first, self._is_last = not glob.startswith("*"), not glob.endswith("*")
        self._pattern = None if re.fullmatch(r"[\w.]+", self._plain) else re.compile(translate(glob))
        self.hint = self._hint()
        begins_with_a_word = re.match(r"[^\W_]", self._plain)
        self._together = re.sub(r"(?<=[^\W_])_(?=[^\W_])", "", self._plain) if begins_with_a_word else None

    def _hint(self) -> str:
        """A pattern that is in each path it is for, written with ``.`` before it and without ``_``; in few others."""
        said = re.escape(re.split(r"[*?[]", self._plain)[0].replace("_", ""))
        return (r"\." if self._is_first else "") + said + (r"\Z" if self._is_last and self._pattern is None else "")

    def names(self, name: _Name) -> bool:
        """Whether it is for that name."""
        if self._pattern is not None:
            return self._pattern.match(name.text) is not None
        if self._is_in(name.text, self._plain):
            return True
        together = self._together
        return together is not None and (self._is_in(name.text, together) or self._begins_a_word_of(name, together))

    def _is_in(self, text: str, plain: str) -> bool:
        if self._is_first:
            return text == plain if self._is_last else text.startswith(plain)
        return text.endswith(plain) if self._is_last else plain in text

    def _begins_a_word_of(self, name: _Name, plain: str) -> bool:
        at = name.together.find(plain)
        while at >= 0:
            is_in_place = at == 0 if self._is_first else at in name.begins
            if is_in_place and (not self._is_last or at + len(plain) == len(name.together)):
                return True
            at = name.together.find(plain, at + 1)
        return False
