"""Hides values in a line's JSON: where they stand by their name, and wherever else in the line they are repeated.

A line is gone through twice. First, what is to be hidden is found: values under names that are to be masked or replaced by
pseudonyms, e-mail and IP addresses, and what a text gives away as a secret (``token=…``, ``Bearer …``). Then each of them is
replaced in every text of the line, keys of extra fields included, also as it is written in JSON and in URLs. Since a document
is made of the line that comes out, no field of it can hold what went in. Of a name that stands twice in an object only the last
value comes out, which is the one that is read.

Never touched are the fields by which a document is kept and found: timestamp, organization.id, action, status and the types of
actor and resource; ``actor.id`` becomes a pseudonym where that is asked for, or where it has an e-mail address that is hidden.
Short values are hidden where their names say so, but not looked for elsewhere (:mod:`indexer.enrich.hidden`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final, Literal

from msgspec import DecodeError

from auditship.line import without_halves
from indexer.enrich.clues import MASKED, addresses, emails, may_give_away_secrets, network, secrets
from indexer.enrich.hidden import Hidden, Nested, decode, encode, leaves
from indexer.enrich.names import Choice, Names, snake
from indexer.enrich.twice import PATH_MAX, earlier, is_doubled

KEYS_MAX: Final = 2000
"""Short keys that are remembered in snake_case."""

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
_CHANGE: Final = frozenset({"field", "from", "to"})
_NAME_KEYS: Final = frozenset({"field", "name", "key", "attribute", "header"})
_VALUE_KEYS: Final = frozenset({"value", "values", "from", "to", "old", "new", "before", "after", "old_value", "new_value"})
_KEY_MAX: Final = max(map(len, _NAME_KEYS | _VALUE_KEYS))


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
        self.is_id_pseudonymous = names.is_pseudonymous("actor.id")
        self.pseudonym = pseudonym
        self.emails = emails
        self.ip = ip
        self.secrets_in_text = secrets_in_text

    def text(self, raw: bytes) -> bytes:
        """A line's JSON with its values hidden, each name in an object once; the very same bytes where that is so already.

        Raises:
            msgspec.DecodeError: it is not JSON.
            RecursionError: it is nested too deeply.
        """
        line = _Line(self, gives_away=self.secrets_in_text and may_give_away_secrets(raw))
        hidden = line.hide(line.read(raw))
        return encode(hidden) if line.is_touched else raw


class _Line:
    """The work on one line."""

    def __init__(self, mask: Mask, *, gives_away: bool) -> None:
        self._mask = mask
        self._gives_away = gives_away
        self._hidden = Hidden()

    @property
    def is_touched(self) -> bool:
        """Whether there was anything to hide."""
        return self._hidden.is_any

    def read(self, text: bytes, path: str = "") -> Any:
        """What JSON says; where it has a name twice, what stands there first is looked at too, and not to be kept.

        Nor are halves of surrogate pairs.
        """
        try:
            value = decode(text)
        except DecodeError:
            whole = without_halves(text)
            if whole == text:
                raise
            self._hidden.is_any = True
            return self.read(whole, path)
        for name, each in earlier(text) if is_doubled(text, value) else ():
            self._hidden.is_any = True
            self._field(f"{path}.{name}"[-PATH_MAX:] if path else name, each)
        return value

    def hide(self, value: Any) -> Any:
        """The whole line, hidden."""
        if not isinstance(value, dict):
            value = self._look(value, "")
            return self._hidden.replace(value)
        actor = value.get("actor")
        if isinstance(actor, dict) and isinstance(actor.get("id"), str):
            self._look_at_id(actor["id"])  # first, so that who it was has one name in the whole line
        self._search_keys(value, _KNOWN)
        looked = {name: self._look_at(name, each) for name, each in value.items()}
        if not self.is_touched:
            return value
        return self._object(looked, _KNOWN, self._finish)

    # First: what is to be hidden.

    def _look_at(self, name: str, value: Any) -> Any:
        """A field of the line itself."""
        if name in _PARTS and isinstance(value, dict):
            self._search_keys(value, _PARTS[name])
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
        is_hidden = self._mask.emails != "keep" and any(emails(value))
        if is_hidden or self._mask.is_id_pseudonymous:
            return str(self._cover("pseudonym", value.strip() or value))
        return value

    def _look_at_change(self, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("field"), str):
            return self._look(value, "changes")
        field, choice = value["field"], self._named(value)
        self._search(field, "")
        self._search_keys(value, _CHANGE)
        looked = {}
        for key, each in value.items():
            if key == "field":
                looked[key] = each
            elif choice != "keep":
                looked[key] = self._cover(choice, each)
            else:
                looked[key] = self._look(each, field) if key in _CHANGE else self._field(f"{field}.{key}"[-PATH_MAX:], each)
        return looked

    def _look_at_ip(self, value: str) -> str | None:
        """The address that the line came from; what is none is masked, the indexer says so of it anyway."""
        if self._mask.ip == "keep":
            return MASKED if self._search(value, "ip") else value
        self._hidden.is_any = True
        shown = network(value.strip(), self._mask.ip)
        self._hidden.add(value.strip(), shown or MASKED)
        if shown and (normal := str(ipaddress.ip_address(value.strip().partition("%")[0]))) != value.strip():
            self._hidden.add(normal, shown)
        return None if self._mask.ip == "drop" else shown or MASKED

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
            choice = self._named(value)
            self._search_keys(value, frozenset())
            return {
                key: self._cover(choice, each)
                if choice != "keep" and len(key) <= _KEY_MAX and _plain(key) in _VALUE_KEYS
                else self._field(f"{path}.{key}"[-PATH_MAX:], each)
                for key, each in value.items()
            }
        return value

    def _named(self, value: dict[str, Any]) -> Choice:
        """What is done with the values of an object that says which field they are of."""
        for key, name in value.items():
            if isinstance(name, str) and len(key) <= _KEY_MAX and _plain(key) in _NAME_KEYS:
                choice = self._mask.names.choice(name[-PATH_MAX:])
                if choice != "keep":
                    return choice
        return "keep"

    def _look_into(self, text: str, path: str) -> Any:
        """A text that is JSON, or such a text again, has fields with names."""
        if text.lstrip()[:1] not in ("{", "[", '"'):
            return text
        try:
            value = self.read(text.encode(), path)
        except DecodeError:
            return text
        return Nested(text, value, self._look(value, path))

    def _search_keys(self, value: dict[str, Any], known: frozenset[str]) -> None:
        for key in value:
            if key not in known:
                self._search(key, "")

    def _search(self, text: str, path: str) -> bool:
        """Notes the addresses and secrets in a text; whether there are any."""
        mask, found = self._mask, False
        if mask.emails != "keep":
            for email in emails(text):
                found = True
                self._cover(mask.emails, email)
        if mask.ip != "keep" and path != "user_agent":  # whose versions look like addresses
            for address, shown in addresses(text, mask.ip):
                found = True
                self._hidden.add(address, shown)
        if self._gives_away:
            for secret in secrets(text):
                found = True
                self._hidden.add(secret, MASKED)
        return found

    def _cover(self, choice: Choice, value: Any) -> Any:
        """What stands in the place of a value; the value is noted, and not to be found elsewhere."""
        if value is None:
            return None
        self._hidden.is_any = True
        if choice == "mask" or self._mask.pseudonym is None:
            for leaf in leaves(value):
                self._hidden.add(leaf, MASKED)
            return MASKED
        if isinstance(value, dict):
            return {key: self._cover(choice, each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._cover(choice, each) for each in value]
        text = str(value)
        return self._hidden.add(text, self._mask.pseudonym(text)) if text else text

    # Then: replacing it, wherever it stands.

    def _finish(self, name: str, value: Any) -> Any:
        """A field of the line itself."""
        replace = self._hidden.replace
        if name in _PARTS and isinstance(value, dict):
            return self._object(
                value, _PARTS[name], lambda key, each: each if _is_kept(f"{name}.{key}", each) else replace(each)
            )
        if name == "changes" and isinstance(value, list):
            finish = partial(self._object, known=_CHANGE, finish=lambda _, each: replace(each))
            return [finish(change) if isinstance(change, dict) else replace(change) for change in value]
        is_kept = (name in _STRUCTURE or name == "ip") and not isinstance(value, dict | list)
        return value if is_kept else replace(value)

    def _object(self, value: dict[str, Any], known: frozenset[str], finish: Callable[[str, Any], Any]) -> dict[str, Any]:
        return dict(zip(self._hidden.names(value, known), (finish(*each) for each in value.items()), strict=True))


def _is_kept(path: str, value: Any) -> bool:
    return path in _STRUCTURE and isinstance(value, str)


@lru_cache(KEYS_MAX)
def _plain(key: str) -> str:
    return snake(key)
