"""What a line says was granted, and to whom: the roles that it gives, and whether the actor is the one who gets them.

Gateways have no agreed way to say it, so the usual ones are known. Roles: a change of a field such as ``role``, an extra field
of such a name, the action's own name (``role.assign_owner``), the resource where it is a role. The target: the resource where
it is a person or a token, else an extra field such as ``target_id`` (not ``user_id`` and the like, by which gateways also mean
the actor). Names are not compared, they are not unique: ids and e-mail addresses are. What is taken away is not granted: not by
an action such as ``role.revoke``, nor by what a field was before. Work on a line is bounded, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple

from msgspec import DecodeError
from msgspec.json import Decoder

from auditship.line import Line
from indexer.enrich import rule

ROLES_MAX: Final = 100
FIELDS_MAX: Final = 1000
"""Roles, and extra fields, that are looked at in one line."""
PROMOTION: Final = "promotion"
"""The role of whom an action promotes without a word to what."""
NAME_MAX: Final = 200
"""Characters of an action that are looked at for a role, and of another name."""
ACTIONS_MAX: Final = 2000
"""Actions whose roles are remembered."""
NAMES_MAX: Final = 2000
"""Names of fields and types that are remembered as rules spell them."""
DEPTH_MAX: Final = 5
"""How deep roles and targets are looked for."""

_ROLE_NAMES: Final = frozenset({
    "role", "roles", "new_role", "role_name", "role_id", "granted_role", "permission", "permissions", "scope", "scopes",
    "access_level", "privilege", "privileges", "policy", "policies", "grant", "grants", "is_admin", "is_owner",
})  # fmt: skip
_TARGET_NAMES: Final = frozenset({
    "target", "target_id", "target_user", "target_user_id", "target_email", "member", "member_id", "member_email",
    "assignee", "assignee_id", "grantee", "grantee_id", "recipient", "recipient_id",
})  # fmt: skip
_PEOPLE: Final = frozenset({
    "member", "user", "account", "person", "service_account", "api_token", "token", "team_member",
})  # fmt: skip
_BEFORE: Final = frozenset({"from", "old", "before", "previous", "old_value"})
_BY_NAME: Final = re.compile(
    r"(?:^|[._])(?:re)?(?:assign|grant|promote|make|elevate)_(?:to_)?(?P<role>\w+)$|\.(?:promote|elevate)(?:$|\.)"
)
_TAKES_AWAY: Final = re.compile(
    r"(?:^|\.)(?:revoke|remove|delete|demote|downgrade|un_?assign|de_?promote|detach|withdraw|destroy|purge|wipe|terminate"
    r"|suspend|deactivate|disable)(?:d|ed)?(?!\w*_(?:cancel|and_(?:re_?)?(?:add|assign|create|grant|make|place|promote|set)))"
    r"(?:_[^.]*)?$"
)
_decode = Decoder().decode


class Grant(NamedTuple):
    """Roles in lower case; whether the actor himself is who they are given to."""

    roles: frozenset[str]
    is_self: bool


_NOTHING: Final = Grant(frozenset(), is_self=False)


def granted(line: Line, extra: bytes) -> Grant:
    """What a line grants; ``extra`` is its other fields as a JSON object, or empty."""
    role = _role_in(line.action[:NAME_MAX])
    if role is None or (not role and not extra and not line.changes and _plain(line.resource.type) != "role"):
        return _NOTHING
    more = _object(extra)
    roles = frozenset(islice(_roles(line, role, more), ROLES_MAX))
    return Grant(roles, is_self=bool(roles) and _is_self(line, more))


def _roles(line: Line, role: str, extra: dict[str, Any]) -> Iterator[str]:
    if role:
        yield role
    if _plain(line.resource.type) == "role":
        yield from (rule.words(text) for text in (line.resource.id, line.resource.name) if text)
    for change in line.changes or ():
        name = _plain(change.field)
        if name in _ROLE_NAMES and change.to:
            before = set(_texts(name, _decode(change.from_))) if change.from_ else set()
            yield from (role for role in _texts(name, _decode(change.to)) if role not in before)
    for name, value in _fields(extra):
        if name in _ROLE_NAMES:
            yield from _texts(name, value)


@lru_cache(ACTIONS_MAX)
def _role_in(action: str) -> str | None:
    """The role that an action names, or ""; none: it takes away, and grants nothing."""
    name = rule.name(action)
    if _TAKES_AWAY.search(name):
        return None
    match = _BY_NAME.search(name)
    return match["role"] or PROMOTION if match else ""


def _is_self(line: Line, extra: dict[str, Any]) -> bool:
    actor = {text.casefold() for text in (line.actor.id, line.actor.email) if text}
    if _plain(line.resource.type) in _PEOPLE and line.resource.id:
        return line.resource.id.casefold() in actor
    return any(text in actor for name, value in _fields(extra) if name in _TARGET_NAMES for text in _ids(value))


def _fields(extra: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The extra fields and those within them; not what is said of the actor, nor of before."""
    return islice(_walk({name: value for name, value in extra.items() if not name.startswith("actor.")}, 0), FIELDS_MAX)


def _walk(value: dict[str, Any], depth: int) -> Iterator[tuple[str, Any]]:
    for key, each in value.items():
        if (name := _plain(key)) not in _BEFORE:
            yield name, each
            if isinstance(each, dict) and depth < DEPTH_MAX:
                yield from _walk(each, depth + 1)


def _texts(name: str, value: Any, depth: int = 0) -> Iterator[str]:
    """The roles that a value names; a field such as ``is_admin`` names one by being true."""
    if isinstance(value, str):
        yield rule.words(value)
    elif value is True:
        yield name.removeprefix("is_")
    elif isinstance(value, list) and depth < DEPTH_MAX:
        for each in value:
            yield from _texts(name, each, depth + 1)
    elif isinstance(value, dict) and depth < DEPTH_MAX:
        named = [(_plain(key), each) for key, each in value.items()]
        before = {role for key, each in named if key in _BEFORE for role in _texts(name, each, depth + 1)}
        for key, each in named:
            if key not in _BEFORE:
                yield from (role for role in _texts(key, each, depth + 1) if role not in before)


def _ids(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value.casefold()
    elif isinstance(value, list) and depth < DEPTH_MAX:
        for each in value:
            yield from _ids(each, depth + 1)
    elif isinstance(value, dict):
        yield from (each.casefold() for name in ("id", "email") if isinstance(each := value.get(name), str))


def _plain(name: str) -> str:
    """The last part of a field's or a type's name, as ``snake_case``."""
    return _last_part(name[-NAME_MAX:])


@lru_cache(NAMES_MAX)
def _last_part(name: str) -> str:
    return rule.name(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).rpartition(".")[2]


def _object(extra: bytes) -> dict[str, Any]:
    try:
        value = _decode(extra) if extra else {}
    except (DecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
