"""Hides values in a line's JSON: where they stand by their name, and wherever else in the line they are repeated.

A line is gone through twice. First, what is to be hidden is found: values under names that are to be masked or replaced by
pseudonyms, e-mail and IP addresses, and what a text gives away as a secret (``token=…``, ``Bearer …``). Then each of them is
replaced in every text of the line, keys of extra fields included, also as it is written in JSON and in URLs. Since a document
is made of the line that comes out, no field of it can hold what went in.

Never touched are the fields by which a document is kept and found: timestamp, organization.id, action, status and the types of
actor and resource; ``actor.id`` becomes a pseudonym where that is asked for, or where it is an e-mail address that is hidden.
A value shorter than :data:`REPEAT_MIN` is hidden where its name says so, but not looked for elsewhere. In a line with more than
:data:`HIDDEN_MAX` values to hide, every text is masked that is not needed to keep it.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from fnmatch import translate
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote, quote_plus

from msgspec import DecodeError
from msgspec.json import Decoder, Encoder

from indexer.enrich.cache import Cache

MASKED: Final = "[masked]"
REPEAT_MIN: Final = 4
"""Characters that a value has at least to be looked for in other texts."""
HIDDEN_MAX: Final = 200
NAMES_MAX: Final = 10_000

Choice = Literal["keep", "mask", "pseudonym"]
_STRUCTURE: Final = frozenset({"timestamp", "action", "status", "organization.id", "actor.type", "actor.id", "resource.type"})
_PARTS: Final = {
    "organization": frozenset({"id", "name"}),
    "actor": frozenset({"type", "id", "name", "email"}),
    "resource": frozenset({"type", "id", "name"}),
    "ci": frozenset({"platform", "run_id", "run_url", "repository"}),
}
_KNOWN: Final = frozenset(
    {*_PARTS, "timestamp", "action", "status", "ip", "user_agent", "reason", "request_id", "session_id", "changes"}
)
_NAME_KEYS: Final = ("field", "name", "key", "attribute", "header")
_VALUE_KEYS: Final = frozenset({"value", "values", "from", "to", "old", "new", "before", "after", "old_value", "new_value"})
_EMAIL: Final = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[\w-]{1,63}\.)+[\w-]{2,63}")
_ADDRESS: Final = re.compile(r"(?<![\w.:])[0-9A-Fa-f:.]{3,45}(?![\w:])")
_CALLED: Final = r"(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|credential)s?"
_GIVEN_AWAY: Final = (
    re.compile(rf"(?i:{_CALLED}[\"']?\s{{0,3}}=\s{{0,3}}[\"']?)([^\s\"'&,;}}\]]{{1,4000}})"),  # token=…
    re.compile(rf"(?i:{_CALLED}\\?[\"']\s{{0,3}}:\s{{0,3}}\\?[\"']?)([^\s\"'\\,}}\]]{{1,4000}})"),  # "token": "…"
    re.compile(rf"(?i:{_CALLED}\s{{0,3}}:\s{{0,3}})(?=\S{{0,200}}\d)([^\s\"'&,;}}\]]{{1,4000}})"),  # Api-Key: …
    re.compile(r"\b(?i:bearer|basic)\s{1,3}(?=\S{0,4000}[\dA-Z=])([\w.~+/=-]{8,4000})"),
    re.compile(r"://[^/\s:@]{0,200}:([^/\s@]{1,500})@"),
)
_HINTS: Final = (b"passw", b"passphrase", b"pwd", b"secret", b"token", b"key", b"credential", b"bearer", b"basic")
"""What a line has somewhere in which a text gives anything away, but for an address with a password in it."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]+")
_decode = Decoder(float_hook=Decimal).decode
_encode = Encoder(decimal_format="number").encode


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


class Mask:
    """What one organisation hides.

    Args:
        names: which fields.
        pseudonym: makes one; none where there is no key.
        emails: what becomes of e-mail addresses.
        ip: what becomes of IP addresses.
        secrets_in_text: whether texts are searched for secrets.
    """

    def __init__(
        self,
        names: Names,
        pseudonym: Callable[[str], str] | None,
        *,
        emails: Choice,
        ip: Literal["keep", "truncate", "drop"],
        secrets_in_text: bool,
    ) -> None:
        self.names = names
        self.pseudonym = pseudonym
        self.emails = emails
        self.ip = ip
        self.secrets_in_text = secrets_in_text

    def text(self, raw: bytes) -> bytes:
        """A line's JSON with its values hidden; the very same bytes where there is nothing to hide.

        Raises:
            msgspec.DecodeError: it is not JSON.
            RecursionError: it is nested too deeply.
        """
        line = _Line(self, gives_away=self.secrets_in_text and _may_give_away(raw))
        hidden = line.hide(_decode(raw))
        return _encode(hidden) if line.is_touched else raw


class _Json(NamedTuple):
    """A text that is JSON: what it says, and the same with what stands under names hidden."""

    text: str
    value: Any
    looked: Any


class _Line:
    """The work on one line."""

    def __init__(self, mask: Mask, *, gives_away: bool) -> None:
        self._mask = mask
        self._gives_away = gives_away
        self.is_touched = False
        """Whether there was anything to hide."""
        self._hidden: dict[str, str] = {}
        """What is to be found nowhere, and what stands in its place."""
        self._is_too_much = False

    def hide(self, value: Any) -> Any:
        """The whole line, hidden."""
        if not isinstance(value, dict):
            value = self._look(value, "")
            self._add_spellings()
            return self._replace(value)
        looked = {name: self._look_at(name, each) for name, each in value.items()}
        if not self.is_touched:
            return value
        self._add_spellings()
        return dict(self._finish(name, each) for name, each in looked.items())

    # First: what is to be hidden.

    def _look_at(self, name: str, value: Any) -> Any:
        """A field of the line itself."""
        if name in _PARTS and isinstance(value, dict):
            return {key: self._look_within(f"{name}.{key}", each) for key, each in value.items()}
        if name == "changes" and isinstance(value, list):
            return [self._look_at_change(each) for each in value]
        if name == "ip" and isinstance(value, str):
            return self._look_at_ip(value)
        return self._look_within(name, value)

    def _look_within(self, path: str, value: Any) -> Any:
        if path in _STRUCTURE and not isinstance(value, dict | list):
            return self._look_at_id(value) if path == "actor.id" and isinstance(value, str) else value
        return self._field(path, value)

    def _look_at_id(self, value: str) -> str:
        """``actor.id``, without which nobody knows who it was: a pseudonym, or as it is."""
        is_email = self._mask.emails != "keep" and _EMAIL.fullmatch(value) is not None
        if is_email or self._mask.names.is_pseudonymous("actor.id"):
            return str(self._cover("pseudonym", value))
        return value

    def _look_at_change(self, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("field"), str):
            return self._look(value, "changes")
        field, choice = value["field"], self._mask.names.choice(value["field"])
        if choice == "keep":
            return {key: each if key == "field" else self._look(each, field) for key, each in value.items()}
        return {key: each if key == "field" else self._cover(choice, each) for key, each in value.items()}

    def _look_at_ip(self, value: str) -> str | None:
        """The address that the line came from; what is none is masked, the indexer says so of it anyway."""
        if self._mask.ip == "keep":
            return value
        self.is_touched = True
        network = _network(value.strip(), self._mask.ip) if "/" not in value else None
        self._hide_value(value.strip(), network or MASKED)
        if network and (normal := str(ipaddress.ip_address(value.strip().partition("%")[0]))) != value.strip():
            self._hide_value(normal, network)
        return None if self._mask.ip == "drop" else network or MASKED

    def _field(self, path: str, value: Any) -> Any:
        choice = self._mask.names.choice(path)
        return self._look(value, path) if choice == "keep" else self._cover(choice, value)

    def _look(self, value: Any, path: str) -> Any:
        """Any JSON that has no name to be hidden by: what is within it may have."""
        if isinstance(value, str):
            self._search(value, path)
            return self._look_into(value, path)
        if isinstance(value, list):
            return [self._look(each, path) for each in value]
        if isinstance(value, dict):
            named = next((text for key in _NAME_KEYS if isinstance(text := value.get(key), str)), None)
            choice: Choice = "keep" if named is None else self._mask.names.choice(named)
            for key in value:
                self._search(key, path)
            return {
                key: self._cover(choice, each)
                if choice != "keep" and key in _VALUE_KEYS
                else self._field(f"{path}.{key}", each)
                for key, each in value.items()
            }
        return value

    def _look_into(self, text: str, path: str) -> Any:
        """A text that is JSON has fields with names."""
        if text.lstrip()[:1] not in ("{", "["):
            return text
        try:
            value = _decode(text)
        except DecodeError:
            return text
        return _Json(text, value, self._look(value, path))

    def _search(self, text: str, path: str) -> None:
        """Notes the addresses and secrets in a text."""
        mask = self._mask
        if mask.emails != "keep" and "@" in text:
            for match in _EMAIL.finditer(text):
                self._cover(mask.emails, match.group())
        if mask.ip != "keep" and path != "user_agent":  # whose versions look like addresses
            for match in _ADDRESS.finditer(text):
                self._note_address(match.group().rstrip("."))
        if self._gives_away:
            for pattern in _GIVEN_AWAY:
                for match in pattern.finditer(text):
                    self._hide_value(match[1], MASKED)

    def _note_address(self, text: str) -> None:
        """What may be an address, with a port behind it or not."""
        if "." not in text and ":" not in text:
            return
        for each in (text, text.rpartition(":")[0]):
            if each and (network := _network(each, self._mask.ip)):
                self._hide_value(each, network)
                return

    def _cover(self, choice: Choice, value: Any) -> Any:
        """What stands in the place of a value; the value is noted, and not to be found elsewhere."""
        if value is None:
            return None
        self.is_touched = True
        if choice == "mask" or self._mask.pseudonym is None:
            for leaf in _leaves(value):
                self._hide_value(leaf, MASKED)
            return MASKED
        if isinstance(value, dict):
            return {key: self._cover(choice, each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._cover(choice, each) for each in value]
        text = str(value)
        return self._hide_value(text, self._mask.pseudonym(text)) if text else text

    def _hide_value(self, text: str, instead: str) -> str:
        if len(text) >= REPEAT_MIN and text != instead:
            self.is_touched = True
            self._hidden.setdefault(text, instead)
        return instead

    # Then: replacing it, wherever it stands.

    def _add_spellings(self) -> None:
        """The hidden values as they look within JSON that is a text, and in URLs."""
        self._is_too_much = len(self._hidden) > HIDDEN_MAX
        if self._is_too_much:
            return
        for text, instead in list(self._hidden.items()):
            if _PLAIN.fullmatch(text):
                continue
            for spelling in (_encode(text)[1:-1].decode(), json.dumps(text)[1:-1], quote(text, safe=""), quote_plus(text)):
                self._hidden.setdefault(spelling, instead)

    def _finish(self, name: str, value: Any) -> tuple[str, Any]:
        if name not in _KNOWN:
            return self._text(name), self._replace(value)
        if name in _PARTS and isinstance(value, dict):
            known = _PARTS[name]
            return name, {
                key if key in known else self._text(key): each
                if f"{name}.{key}" in _STRUCTURE and isinstance(each, str)
                else self._replace(each)
                for key, each in value.items()
            }
        if name == "changes" and isinstance(value, list):
            return name, [
                {
                    key if key in ("field", "from", "to") else self._text(key): self._replace(each)
                    for key, each in change.items()
                }
                if isinstance(change, dict)
                else self._replace(change)
                for change in value
            ]
        is_kept = (name in _STRUCTURE or name == "ip") and not isinstance(value, dict | list)
        return name, value if is_kept else self._replace(value)

    def _replace(self, value: Any) -> Any:
        if isinstance(value, _Json):
            replaced = self._replace(value.looked)
            return self._text(value.text) if replaced == value.value else _encode(replaced).decode()
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self._replace(each) for each in value]
        if isinstance(value, dict):
            return {self._text(key): self._replace(each) for key, each in value.items()}
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            text = str(value)
            return value if self._text(text) == text else MASKED
        return value

    def _text(self, text: str) -> str:
        if self._is_too_much or text == MASKED:
            return MASKED
        found = [hidden for hidden in self._hidden if hidden in text]
        if not found:
            return text
        pattern = "|".join(re.escape(hidden) for hidden in sorted(found, key=len, reverse=True))
        return re.sub(pattern, lambda match: self._hidden[match.group()], text)


def _may_give_away(raw: bytes) -> bool:
    lower = raw.lower()
    return any(hint in lower for hint in _HINTS) or (b"://" in raw and b"@" in raw)


def _network(text: str, ip: str) -> str | None:
    """The network of an address, or the mask; none for what is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if ip == "drop":
        return MASKED
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Address(int(address) >> 80 << 80))
    return str(ipaddress.IPv4Address(int(address) >> 8 << 8))


def _leaves(value: Any) -> Iterator[str]:
    """The texts and numbers of any JSON, and the keys of its objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").replace(" ", "_").lower()
