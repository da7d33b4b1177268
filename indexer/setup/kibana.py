"""Imports the saved objects and alert rules of ``kibana/`` into a Kibana.

Safe to run again: objects that differ from ours are replaced by id, those that do not are left alone, and so is a rule that is
there, since people add their actions to it.
Raises :class:`~indexer.setup.change.SetupError` naming the Kibana, what was being done, and Kibana's own words.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import urllib3

import kibana
from indexer.setup.change import Change, SetupError, differences, same

TIMEOUT_S: Final = 60.0
_HEADERS: Final = {"kbn-xsrf": "true"}


class KibanaSetup:
    """One run.

    Args:
        url: Kibana's address, with the path of its space if it has one.
        api_key: an encoded API key, or
        basic: a name and a password.
        ca_file: who vouches for it; none: whom the system trusts.
        dry_run: look, change nothing.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        basic: tuple[str, str] | None = None,
        ca_file: Path | None = None,
        dry_run: bool = False,
    ) -> None:
        self._url = url.rstrip("/")
        self._headers = dict(_HEADERS)
        if api_key:
            self._headers["Authorization"] = f"ApiKey {api_key}"
        elif basic:
            self._headers["Authorization"] = f"Basic {base64.b64encode(':'.join(basic).encode()).decode()}"
        self._dry_run = dry_run
        self._pool = urllib3.PoolManager(ca_certs=str(ca_file) if ca_file else None, timeout=TIMEOUT_S, retries=False)

    def run(self) -> Iterator[Change]:
        """Imports what is not there as it should be; tells each step when it is done."""
        self._call("GET", "/api/status")
        changes = [self._object(each) for each in kibana.objects(kibana.sources())]
        if not self._dry_run and any(each.change != "unchanged" for each in changes):
            self._import()
        yield from changes
        for rule in kibana.rules():
            yield self._rule(rule)

    def _object(self, wanted: dict[str, Any]) -> Change:
        """What becomes of a saved object. Kibana may have added attributes of its own: those that we give are compared."""
        asked = {"objects": [{"type": wanted["type"], "id": wanted["id"]}], "excludeExportDetails": True}
        present = self._call("POST", "/api/saved_objects/_export", body=asked, missing=HTTPStatus.BAD_REQUEST)
        name = f"{wanted['type']} {wanted['id']}"
        if not present:
            return Change("saved_objects", name, "created")
        ours, theirs = _read(wanted["attributes"]), _read(present.get("attributes", {}))
        theirs = {name: value for name, value in theirs.items() if name in ours}
        return Change("saved_objects", name, "unchanged" if same(ours, theirs) else "updated", differences(ours, theirs))

    def _import(self) -> None:
        part = ("audit.ndjson", kibana.build(), "application/x-ndjson")
        answer = self._call("POST", "/api/saved_objects/_import?overwrite=true", fields={"file": part})
        if not answer.get("success"):
            errors = json.dumps(answer.get("errors", answer))[:1000]
            raise SetupError(f"{self._url}: not everything was imported: {errors}", "Nothing else was changed.")

    def _rule(self, rule: dict[str, Any]) -> Change:
        path = f"/api/alerting/rule/{rule['id']}"
        if self._call("GET", path, missing=HTTPStatus.NOT_FOUND):
            return Change("alert_rules", rule["id"], "unchanged")
        if not self._dry_run:
            self._call("POST", path, body={name: value for name, value in rule.items() if name != "id"})
        return Change("alert_rules", rule["id"], "created")

    def _call(
        self, method: str, path: str, *, body: object = None, fields: dict[str, Any] | None = None, missing: int = 0
    ) -> dict[str, Any]:
        """One request and its JSON; an empty one where the status is that of what is ``missing``."""
        headers = dict(self._headers)
        try:
            if fields is not None:
                answer = self._pool.request(method, self._url + path, fields=fields, headers=headers, redirect=False)
            elif body is not None:
                answer = self._pool.request(method, self._url + path, json=body, headers=headers, redirect=False)
            else:
                answer = self._pool.request(method, self._url + path, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            hint = "Name Kibana's address with --kibana-url, and who vouches for it with --kibana-ca-file."
            raise SetupError(f"{self._url}: {error}", hint) from None
        if answer.status == missing:
            return {}
        if answer.status != HTTPStatus.OK:
            hint = "An administrator of Kibana is needed." if answer.status in (401, 403) else ""
            words = answer.data[:300].decode("utf-8", "replace")
            raise SetupError(f"{self._url}: {method} {path}: {answer.status} {words}", hint)
        try:
            value = json.loads(answer.data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise SetupError(f"{self._url}: {method} {path}: not an answer of Kibana's", "Is this Kibana's address?")
        return value


def _read(value: Any) -> Any:
    """An attribute's value; many are JSON within text, which Kibana may write in its own way."""
    if isinstance(value, dict):
        return {name: _read(each) for name, each in value.items()}
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
