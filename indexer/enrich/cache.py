"""A bounded cache: what was looked up lately, however hostile the keys.

Two generations of a plain dictionary: a hit costs one look-up, and what is still used survives when the elder generation is
dropped. Bounded in entries, and in the bytes of its keys; a key that is too long is not kept at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

KEY_MAX: Final = 2048
"""Characters in a key that is kept."""
KEY_USUAL: Final = 200
"""Characters in a key on average; with longer ones fewer are kept."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Cache(Generic[_Key, _Value]):
    """At most ``entries_max`` values, and a bounded amount of text in their keys."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = max(1, entries_max // 2)
        self._characters_max = self._entries_max * KEY_USUAL
        self._young: dict[_Key, _Value] = {}
        self._old: dict[_Key, _Value] = {}
        self._characters = 0
        self.get: Callable[[_Key], _Value | None] = self._young.get
        """The value of a key that was used lately, or None. Then ask :meth:`find`."""

    def find(self, key: _Key) -> _Value | None:
        """The value of a key in either generation."""
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.put(key, value)
        return value

    def put(self, key: _Key, value: _Value, size: int | None = None) -> _Value:
        """Keeps a value, and returns it; ``size``: characters in a key that is not made of texts alone."""
        if size is None:
            size = len(key) if isinstance(key, str) else sum(map(len, key))  # type: ignore[call-overload]
        if size > KEY_MAX:
            return value
        if len(self._young) >= self._entries_max or self._characters + size > self._characters_max:
            self._old, self._young, self._characters = self._young, {}, 0
            self.get = self._young.get
        self._characters += size
        self._young[key] = value
        return value

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
