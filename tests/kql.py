"""Kibana's query language as far as our saved searches use it, turned into what Kibana asks Elasticsearch.

``field : value``, ``field : (a or b)``, quotes, ``*`` in a value, ``and``, ``or``, ``not``, parentheses. As Kibana does: a
value with a wildcard is a ``query_string``, a quoted one a ``match_phrase``, any other a ``match``.
"""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<mark>[():])|(?P<word>[^\s():"]+))""")


class KqlError(Exception):
    """Not the part of the language that is known here."""


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise KqlError(text[at:])
            self.tokens.append(found.group().strip())
            at = found.end()
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise KqlError(f"expected {expected or 'more'}, got {token!r}")
        self.at += 1
        return token

    def any_of(self, field: str | None) -> dict[str, Any]:
        clauses = [self.all_of(field)]
        while self.peek().lower() == "or":
            self.take()
            clauses.append(self.all_of(field))
        return clauses[0] if len(clauses) == 1 else {"bool": {"should": clauses, "minimum_should_match": 1}}

    def all_of(self, field: str | None) -> dict[str, Any]:
        clauses = [self.one(field)]
        while self.peek().lower() == "and":
            self.take()
            clauses.append(self.one(field))
        return clauses[0] if len(clauses) == 1 else {"bool": {"filter": clauses}}

    def one(self, field: str | None) -> dict[str, Any]:
        if self.peek().lower() == "not":
            self.take()
            return {"bool": {"must_not": [self.one(field)]}}
        if self.peek() == "(":
            self.take()
            inside = self.any_of(field)
            self.take(")")
            return inside
        token = self.take()
        if field is not None:
            return _value(field, token)
        self.take(":")
        return self.one(token)


def _value(field: str, token: str) -> dict[str, Any]:
    if token.startswith('"'):
        return {"match_phrase": {field: token[1:-1]}}
    if token == "*":
        return {"exists": {"field": field}}
    if "*" in token:
        return {"query_string": {"fields": [field], "query": token}}
    return {"match": {field: token}}


def to_query(text: str) -> dict[str, Any]:
    """The query; an empty text finds everything."""
    if not text.strip():
        return {"match_all": {}}
    parser = _Parser(text)
    query = parser.any_of(None)
    if parser.peek():
        raise KqlError(f"too much: {parser.peek()!r}")
    return query


def fields(query: Any) -> set[str]:
    """Every field that a query names."""
    if isinstance(query, list):
        return set().union(*map(fields, query), set())
    if not isinstance(query, dict):
        return set()
    found: set[str] = set()
    for name, value in query.items():
        if name in ("match", "match_phrase"):
            found |= set(value)
        elif name == "query_string":
            found |= set(value["fields"])
        elif name == "exists":
            found.add(value["field"])
        else:
            found |= fields(value)
    return found
