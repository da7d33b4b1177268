"""What the record of a question may say: what was looked for, without what a policy hides.

Whoever looks for an e-mail address that is stored nowhere must not store it by looking for it. So the text of a query, and the
filters beside it, go through the policies of the organisations that the question is about, before they are recorded: those of
the reader's token, of ``--organization``, and of an ``organization.id`` that the query asks for in an AND; without any of them,
every policy that hides anything. Each value becomes what it is in their events: a pseudonym (of each of them, joined by OR, so
that the recorded query is one that can be asked again), a network, or ``[masked]``. A policy of many organisations
(``org-bank-*``) has a pseudonym of its own then, which ``auditship pseudonym --organization 'org-bank-*'`` tells.

By which name a value is hidden is known where the query names a field. A word without one, or in a text, may be anything: it is
replaced by a pseudonym where a policy hides anything by name. Addresses and secrets are found wherever they stand. A part of a
hidden value (``ada*``) is masked; a pseudonym stays as it is, for it is what analysts look for; and a query that cannot be
read is masked as a whole. Who may not read the key, as most people on the command line, has no pseudonyms, only masks.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from luqum import tree

from indexer.enrich.clues import MASKED, addresses, emails, secrets
from indexer.enrich.clues import network as network_of
from indexer.enrich.hidden import Hidden
from indexer.enrich.names import Choice, Names
from indexer.enrich.privacy import SECRETS, Keyed, Privacy
from indexer.store.contract import QueryError
from indexer.store.fields import EXTRA, type_of
from indexer.store.query import runs, tree_of, unescaped

ORGANIZATIONS_MAX: Final = 5
"""Whose pseudonyms a value may become at once; of more it becomes that of auditship's own."""
FILTERS: Final = ("severities", "datasets", "organization", "organizations", "outcome", "since_ms", "until_ms")
"""Particulars that say nothing of a person."""
_LINE_S: Final[Mapping[str, tuple[str, ...]]] = {
    "user.id": ("actor.id",),
    "user.name": ("actor.name", "actor.id"),
    "user.full_name": ("actor.name",),
    "user.email": ("actor.email",),
    "related.user": ("actor.id", "actor.name", "actor.email"),
    "user_agent.original": ("user_agent",),
    "session.id": ("session_id",),
    "http.request.id": ("request_id",),
}
"""The line's names of a document's fields, where they are others than the field's own without ``audit.extra`` or ``audit``."""
_ADDRESSES: Final = frozenset({"source.ip", "related.ip"})
_KNOWN: Final = re.compile(r"p-[a-z2-7]{26}|\[masked\]|[*?]*")
_HALF: Final = re.compile(r"[^\s*?@\"']@")
"""What is left of an e-mail address that is not a whole one."""
_SHAPES: Final = re.compile(
    r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[a-z]-|sk[-_](?:live_|test_|proj-)?|AKIA|ASIA|eyJ)[\w.+/=-]{12,4000}"
)
"""Tokens that are known by how they begin."""
_log = logging.getLogger("auditship.indexer")


class _Whose(NamedTuple):
    """A policy, and the key that its pseudonyms are made with."""

    privacy: Privacy
    names: Names
    keyed: Keyed | None


class Discretion:
    """Hides in questions what organisations hide in their lines.

    Args:
        policies: those that hide anything, by the id that they are written for; an organisation's is the first that matches.
        key: what pseudonyms are made with; empty: none are.
        own: whose key is used where a question is about more organisations than :data:`ORGANIZATIONS_MAX`.
        policy: the policy of an organisation by its id; none where it hides nothing.
    """

    def __init__(
        self, policies: Sequence[tuple[str, Privacy]], key: bytes, own: str, policy: Callable[[str], Privacy | None]
    ) -> None:
        self._key, self._own, self._policy = key, own, policy
        self._all = [self._whose(name, privacy) for name, privacy in policies]
        if len(self._all) > ORGANIZATIONS_MAX:
            self._all = [self._whose(own, privacy) for _, privacy in policies]

    def hide(self, details: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """A question's particulars as they may be recorded, and the pseudonyms that stand in them."""
        query = details.get("query", "")
        parsed = _parsed(query)
        told = _Told(self._about(details, parsed))
        if not told.whose:
            return dict(details), ()
        found = {name: each if name in FILTERS else told.anything(each) for name, each in details.items() if name != "query"}
        found["query"] = "" if not query.strip() else MASKED if parsed is None else told.query(parsed)
        if isinstance(actor := details.get("actor"), str):
            found["actor"] = " OR ".join(told.value("related.user", actor) or [actor])
        return found, tuple(told.pseudonyms)

    def _about(self, details: Mapping[str, Any], parsed: tree.Item | None) -> list[_Whose]:
        """The policies that a question is subject to."""
        named = [details.get("organization"), *(_organizations(parsed) if parsed is not None else ())]
        names = dict.fromkeys(name.lower() for name in (*(details.get("organizations") or ()), *named) if name)
        if not names:
            return self._all
        hiding = [(name, privacy) for name in names if (privacy := self._policy(name)) is not None]
        return [self._whose(self._own if len(hiding) > ORGANIZATIONS_MAX else name, privacy) for name, privacy in hiding]

    def _whose(self, name: str, privacy: Privacy) -> _Whose:
        names = Names(privacy.mask, privacy.pseudonyms, SECRETS if privacy.secrets else ())
        return _Whose(privacy, names, Keyed(self._key, name) if self._key else None)


class _Told:
    """The work on one question."""

    def __init__(self, whose: list[_Whose]) -> None:
        self.whose = whose
        self.pseudonyms: dict[str, None] = {}

    def anything(self, value: Any) -> Any:
        """A particular that is no query: a file, a format, an action."""
        if isinstance(value, str):
            return self.text(value)
        return [self.anything(each) for each in value] if isinstance(value, list | tuple) else value

    def query(self, item: tree.Item) -> str:
        """A query, read."""
        try:
            self._walk(item, None)
        except Exception as error:  # noqa: BLE001 - whatever it is, what should be hidden is not stored
            _log.error("a query cannot be masked and is recorded as %s: %s", MASKED, type(error).__name__)
            return MASKED
        return str(item)

    def value(self, field: str | None, value: str, *, is_part: bool = False) -> list[str] | None:
        """What is told of a value in a field; none: the value itself."""
        if _KNOWN.fullmatch(value):
            return None
        if field in _ADDRESSES:
            return self._address(value)
        choices = [_choice(each, field) for each in self.whose]
        if "mask" in choices or (is_part and "pseudonym" in choices):
            return [MASKED]
        if "pseudonym" in choices:
            return self._cover(each for each, choice in zip(self.whose, choices, strict=True) if choice == "pseudonym")(value)
        text = self.text(value, is_agent=(field or "").startswith("user_agent"))
        return None if text == value else [text]

    def text(self, text: str, *, is_agent: bool = False) -> str:
        """A text without the addresses and secrets in it."""
        hidden = Hidden()
        for each in self.whose:
            if each.privacy.emails != "keep":
                for email in emails(text):
                    (shown, *_) = self._cover([one for one in self.whose if one.privacy.emails == "pseudonym"])(email)
                    hidden.add(email, shown)
            if each.privacy.ip != "keep" and not is_agent:
                for address, shown in addresses(text, each.privacy.ip):
                    hidden.add(address, shown)
            if each.privacy.secrets:
                for secret in (*secrets(text), *_SHAPES.findall(text)):
                    hidden.add(secret, MASKED)
        text = hidden.text(text)
        if _HALF.search(text) and any(each.privacy.emails != "keep" for each in self.whose):
            return MASKED
        return text

    def _cover(self, whose: Iterable[_Whose]) -> Callable[[str], list[str]]:
        """Makes the pseudonyms of a value; a mask where there is no key."""
        keys = [each.keyed for each in whose]

        def cover(value: str) -> list[str]:
            made = list(dict.fromkeys(keyed.pseudonym(value) for keyed in keys if keyed is not None))
            self.pseudonyms.update(dict.fromkeys(made))
            return made or [MASKED]

        return cover

    def _address(self, value: str) -> list[str] | None:
        """An address or a network: no more of it than its network is told, or nothing."""
        how = {each.privacy.ip for each in self.whose} - {"keep"}
        if not how:
            return None
        try:
            network = ipaddress.ip_network(value, strict=False)
        except ValueError:
            return [MASKED]
        if "drop" in how:
            return [MASKED]
        shown = network_of(str(network.network_address), "truncate") or MASKED
        if "/" not in value:
            return None if shown == value else [shown]
        most = 24 if network.version == 4 else 48  # noqa: PLR2004 - as in events
        return None if network.prefixlen <= most else [f"{shown}/{most}"]

    def _walk(self, item: tree.Item, field: str | None) -> None:
        """Replaces what is in a query, in place."""
        match item:
            case tree.SearchField(name="_exists_"):
                self._rename(item.expr, "value", str(item.expr))
            case tree.SearchField():
                self._rename(item, "name", item.name)
                self._walk(item.expr, None if item.name == "*" else unescaped(item.name))
            case tree.Range() | tree.From() | tree.To():
                for end in item.children:
                    self._replace(end, [end], field, is_part=field not in _ADDRESSES)
            case tree.UnknownOperation():
                for run in runs(item.children):
                    self._replace(run[0], run, field) if len(run) > 1 else self._walk(run[0], field)
            case tree.Term():
                self._replace(item, [item], field, is_part=isinstance(item, tree.Regex))
            case _:
                for each in item.children:
                    self._walk(each, field)

    def _rename(self, item: tree.Item, attribute: str, name: str) -> None:
        """A field's name, which may hold an address."""
        plain = unescaped(name).strip('" ')
        told = self.text(key := plain.removeprefix(f"{EXTRA}."))
        if told != key:
            setattr(item, attribute, plain.removesuffix(key) + re.sub(r"([^\w.-])", r"\\\1", told))

    def _replace(self, first: tree.Item, words: Sequence[tree.Item], field: str | None, *, is_part: bool = False) -> None:
        """Puts what may be told in the place of a term, or of several words that are one value."""
        value = " ".join(_said(each) for each in words)
        is_part = is_part or (type(first) is tree.Word and len(words) == 1 and first.has_wildcard())
        told = self.value(field, value, is_part=is_part)
        if told is None:
            return
        shown = [each if re.fullmatch(r"[\w.-]+", each) else _quoted(each) for each in told]
        first.value = shown[0] if len(shown) == 1 else f"({' OR '.join(shown)})"
        first.tail = words[-1].tail
        for each in words[1:]:
            each.value = each.head = each.tail = ""


def _choice(whose: _Whose, field: str | None) -> Choice:
    """What is done with values of a field."""
    privacy, names = whose.privacy, whose.names
    if field is None or field == EXTRA or type_of(field) in (None, "text"):
        # It may be anything that a line says: what is hidden by name is hidden here too.
        named = names.choice(field) if field else "keep"
        return named if named != "keep" else "pseudonym" if privacy.mask or privacy.pseudonyms else "keep"
    paths = _LINE_S.get(field) or (field.removeprefix(f"{EXTRA}.").removeprefix("audit."),)
    found = {_choice_of(privacy, names, path) for path in paths}
    return "mask" if "mask" in found else "pseudonym" if "pseudonym" in found else "keep"


def _choice_of(privacy: Privacy, names: Names, path: str) -> Choice:
    if path == "actor.id":
        return "pseudonym" if names.is_pseudonymous(path) else "keep"
    found = names.choice(path)
    return privacy.emails if path == "actor.email" and found == "keep" else found


def _parsed(text: Any) -> tree.Item | None:
    """A query's tree; none for what is none."""
    if not isinstance(text, str) or not text.strip():
        return None
    try:
        return tree_of(text)
    except QueryError:
        return None


def _organizations(item: tree.Item) -> Iterator[str]:
    """Organisations that all hits of a query must be of."""
    match item:
        case tree.SearchField(name="organization.id", expr=tree.Word() | tree.Phrase() as value) if not value.has_wildcard():
            yield _said(value)
        case tree.AndOperation():
            for each in item.children:
                yield from _organizations(each)


def _said(term: tree.Item) -> str:
    """A term's value, without quotes and backslashes."""
    text = str(term.value)
    return unescaped(text[1:-1] if isinstance(term, tree.Phrase) else text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
