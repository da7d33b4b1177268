"""The fields of a document, as both stores see them: which there are, of what type, and a document's values of one.

The mapping that Elasticsearch gets (``index_templates/component_templates/audit-mappings.json``) is the one source: a field
that it does not name, or neither indexes nor reads when it is asked for (``runtime``), finds nothing in either store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from sys import maxsize
from typing import Any, Final

from index_templates import load
from indexer.store.contract import QueryError

VALUE_MAX: Final = 1024
"""Characters beyond which a keyword is kept and shown, but not found (``ignore_above``); see :func:`limit_of`."""

ALL_TEXT: Final = (
    "user.name",
    "user.full_name",
    "user.email",
    "user.id",
    "event.action",
    "event.reason",
    "audit.resource.name",
    "audit.resource.id",
    "audit.resource.type",
    "organization.id",
    "organization.name",
    "audit.location",
    "audit.actor.label",
    "source.ip",
    "audit.rejection.reason",
)
"""Where a word without a field is looked for."""

EXTRA: Final = "audit.extra"
_FINDABLE: Final = frozenset({"keyword", "text", "ip", "date", "long"})


@cache
def _mapped() -> Mapping[str, Mapping[str, Any]]:
    """What the mapping says of each field."""
    mapping = load("component_templates")["audit-mappings"]["template"]["mappings"]
    return {**mapping["runtime"], **dict(_leaf_fields("", mapping["properties"]))}


def _leaf_fields(prefix: str, properties: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, value in properties.items():
        if "properties" in value:
            yield from _leaf_fields(f"{prefix}{name}.", value["properties"])
        else:
            yield prefix + name, value


@cache
def types() -> Mapping[str, str]:
    """The type of every field that can be looked for."""
    return {
        name: value["type"]
        for name, value in _mapped().items()
        if value["type"] in _FINDABLE and (value.get("index", True) or value.get("doc_values", True))
    }


def type_of(field: str) -> str | None:
    """A field's type; ``flattened`` for anything under ``audit.extra``, none for what cannot be looked for."""
    if field == EXTRA or field.startswith(EXTRA + "."):
        return "flattened"
    return types().get(field)


def is_folded(field: str) -> bool:
    """Whether a keyword is compared and counted in lower case: names are; codes, ids and paths are taken as they stand."""
    return "normalizer" in _mapped().get(field, {})


def limit_of(field: str) -> int:
    """How many characters a text may have to be found in this field; what is read when it is asked for knows no limit."""
    name = EXTRA if field.startswith(EXTRA + ".") else field
    limit: int = _mapped().get(name, {}).get("ignore_above", maxsize)
    return limit


def check_counted(fields: Iterable[str]) -> None:
    """Passes fields whose values can be counted.

    Raises:
        QueryError: a text, or a field that differs from event to event (``http.request.id``): found, but not kept by value.
    """
    for field in fields:
        found = _mapped().get(field, {})
        if found.get("type") == "text" or not found.get("doc_values", True):
            raise QueryError(f"{field}: its values are found, not counted", "Name another keyword, an address or a number.")


def under(field: str) -> tuple[str, ...]:
    """The field itself, or all fields of an object by that name."""
    if type_of(field):
        return (field,)
    return tuple(name for name in (*types(), EXTRA) if name.startswith(f"{field}."))


def values(document: Any, field: str) -> Iterator[Any]:
    """A field's values in a document: none, one, or those of a list."""
    if field == EXTRA or field.startswith(EXTRA + "."):
        yield from _extra(document, field[len(EXTRA) + 1 :])
        return
    yield from _at(document, field.split("."), 0)


@lru_cache(maxsize=1000)
def getter(field: str) -> Callable[[Any], Sequence[Any]]:
    """:func:`values` of one field, for many documents: several times as fast where no list is on the way."""
    if field == EXTRA or field.startswith(EXTRA + "."):
        key = field[len(EXTRA) + 1 :]
        return lambda document: tuple(_extra(document, key)) if "extra" in document.get("audit", ()) else ()
    path = field.split(".")

    def get(document: Any) -> Sequence[Any]:
        value = document
        for name in path:
            if type(value) is not dict:
                return tuple(_at(document, path, 0))
            value = value.get(name)
            if value is None:
                return ()
        if type(value) is list or type(value) is dict:
            return tuple(_at(value, path, len(path)))
        return (value,)

    return get


def _at(value: Any, path: list[str], depth: int) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _at(each, path, depth)
    elif depth == len(path):
        if value is not None and not isinstance(value, dict):
            yield value
    elif isinstance(value, dict):
        yield from _at(value.get(path[depth]), path, depth + 1)


def _extra(document: Any, key: str) -> Iterator[str]:
    """The leaves of ``audit.extra``, as text; all of them, or those whose dotted key this is."""
    audit = document.get("audit")
    extra = audit.get("extra") if isinstance(audit, dict) else None
    for name, value in _leaves("", extra):
        if not key or name == key:
            yield value


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    waiting = [(prefix, value)]
    while waiting:  # not calls within calls: what could be stored may be nested as deep as Python lets those be
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{name}.{key}" if name else key, each) for key, each in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [(name, each) for each in reversed(value)]
        elif value is not None:
            yield name, ("true" if value else "false") if isinstance(value, bool) else str(value)
