"""A cluster, asked as an administrator: whatever goes wrong names the cluster, what was being done, and the remedy.

A cluster that has just been started says for a while that its own indices are not there yet (503): what may be asked again is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from indexer.setup.change import SetupError
from indexer.store.contract import Unavailable
from indexer.store.elasticsearch.connection import Answer, Connection

PATIENCE_S: Final = 30.0
PAUSE_S: Final = 0.5
REPEATABLE: Final = ("GET", "PUT")


class Administrator:
    """Asks. Raises :class:`~indexer.setup.change.SetupError`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.where = connection.where

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, missing: bool = False) -> Answer:
        """One request; ``missing`` lets a 404 pass."""
        try:
            answer = self._answer(method, path, None if body is None else json.dumps(body).encode())
        except Unavailable as error:
            hint = "Credentials of an administrator are needed: --user and --password-file, or --api-key-file."
            refused = "401" in error.what or "403" in error.what
            raise SetupError(error.what, hint if refused else error.hint) from None
        if answer.ok or (missing and answer.status == HTTPStatus.NOT_FOUND):
            return answer
        hint = ""
        if "derived api keys" in answer.reason():
            hint = "Elasticsearch lets no API key make another: run this with --user and --password-file."
        raise SetupError(f"{self.where}: {method} {path}: {answer.status} {answer.reason()}", hint)

    def _answer(self, method: str, path: str, body: bytes | None) -> Answer:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.connection.call(method, path, body)
            except Unavailable as error:
                if ": 503 " not in error.what or method not in REPEATABLE or time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_S)

    def get(self, path: str) -> dict[str, Any]:
        """What is there."""
        return decoded(self.call("GET", path))


def decoded(answer: Answer) -> dict[str, Any]:
    """What an answer says."""
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise SetupError(f"not an answer of Elasticsearch: {answer.body[:100]!r}")
    return value
