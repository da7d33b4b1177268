"""Installs in Elasticsearch what the store counts on: the resources of ``index_templates/``, the data streams, the keys.

Promises: every step looks first and changes only what differs, so a second run changes nothing; a dry run looks only. Data
streams that are older than a template's last change, in this run or one that broke off, are rolled over, so that it holds from
the next document on; what is stored already stays as it is. Nothing is ever deleted. A policy that would have documents deleted
sooner is refused before anything is changed.

Raises :class:`SetupError` naming the cluster, what was being done, and the remedy.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

import index_templates
from auditship.errors import AuditshipError, ConfigurationError
from auditship.settings import read_secret
from indexer.document import REJECTED
from indexer.organizations import HOLD, Policies
from indexer.retention import days_of, exceptions
from indexer.settings import ElasticsearchSettings
from indexer.store.contract import Unavailable
from indexer.store.elasticsearch.bulk import data_stream
from indexer.store.elasticsearch.connection import Answer, Connection, key_of
from indexer.store.elasticsearch.segments import segments

VERSION_MIN: Final = 9
GATEWAYS: Final = ("web", "cli", "api")
OWN: Final = (REJECTED, "agent", "alert", "access")
"""What auditship itself has to say; kept in the class that the files speak of."""

_PATHS: Final = {
    "component_templates": "/_component_template/{}",
    "lifecycle_policies": "/_ilm/policy/{}",
    "index_templates": "/_index_template/{}",
    "roles": "/_security/role/{}",
}
DIFFERENCES_MAX: Final = 5
SHOWN_MAX: Final = 80
ANY_CLASS: Final = ""
_OF_A_CLASS: Final = frozenset({"lifecycle_policies", "index_templates"})
_TEMPLATES: Final = frozenset({"component_templates", "index_templates"})


class SetupError(AuditshipError):
    """The cluster cannot be set up; what was done before stays, and another run goes on from there."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a resource, or would in a dry run."""

    kind: str
    name: str
    change: Literal["created", "updated", "rolled over", "replaced", "taken back", "unchanged"]
    detail: str = ""
    """For people: what differed."""


class _Resource(NamedTuple):
    """A resource as it should be, and as it is there: none, if it is not."""

    kind: str
    name: str
    wanted: Mapping[str, Any]
    retention: str
    present: Any

    @property
    def is_right(self) -> bool:
        """Whether there is nothing to change."""
        return self.present is not None and same(self.wanted, self.present)

    @property
    def changed_ms(self) -> float:
        """When it was changed: by this run, it will be; at the beginning of time, where the cluster does not tell."""
        return self.present.get("modified_date_millis", 0) if self.is_right else math.inf

    def is_of(self, retention: str) -> bool:
        """Whether it is for data streams of that class."""
        return self.retention in (ANY_CLASS, retention)


class Setup:
    """One run.

    Args:
        connection: the cluster, reached as an administrator.
        dry_run: look, change nothing.
        allow_shorter_retention: whether documents may come to be deleted sooner than they were going to be.
    """

    def __init__(self, connection: Connection, *, dry_run: bool = False, allow_shorter_retention: bool = False) -> None:
        self._connection = connection
        self._dry_run = dry_run
        self._allow_shorter_retention = allow_shorter_retention

    def run(self, settings: ElasticsearchSettings, classes: Iterable[str], gateways: Iterable[str]) -> Iterator[Change]:
        """Does everything, in an order in which each step finds what it needs; tells each step when it is done.

        Args:
            settings: names the files of the two keys.
            classes: retention classes besides ``30d``.
            gateways: gateways besides the usual three.
        """
        self._check_version()
        every = sorted({index_templates.CLASS, *classes})
        resources = [
            self._look(kind, name, wanted, retention)
            for kind in _PATHS
            for retention in (every if kind in _OF_A_CLASS else [ANY_CLASS])
            for name, wanted in index_templates.load(kind, retention=retention or index_templates.CLASS).items()
        ]
        for resource in resources:
            yield self._put(resource)
        for retention in every:
            changed_ms = max(each.changed_ms for each in resources if each.kind in _TEMPLATES and each.is_of(retention))
            own = OWN if retention == index_templates.CLASS else ()
            for dataset in dict.fromkeys((*GATEWAYS, *sorted(gateways), *own)):
                yield self._data_stream(data_stream(dataset, retention), changed_ms)
        for name, wanted in index_templates.load("api_keys").items():
            path = settings.writer_key_file if name == "audit-writer" else settings.reader_key_file
            if path is not None:
                yield self._key(path, wanted, settings)

    def _check_version(self) -> None:
        answer = self._call("GET", "/")
        version = _decoded(answer).get("version", {}).get("number", "")
        if not version.partition(".")[0].isdigit() or int(version.partition(".")[0]) < VERSION_MIN:
            raise SetupError(
                f"{self._connection.where} runs Elasticsearch {version or 'of an unknown version'}",
                f"auditship needs version {VERSION_MIN} or later.",
            )

    def _look(self, kind: str, name: str, wanted: Mapping[str, Any], retention: str) -> _Resource:
        """A resource as it is there; refuses to have a policy keep documents shorter."""
        answer = self._call("GET", _PATHS[kind].format(name), missing=True)
        present = None if answer.status == HTTPStatus.NOT_FOUND else _stored(kind, name, _decoded(answer))
        if kind == "lifecycle_policies" and present is not None:
            self._check_shorter(name, _kept_days(present), _kept_days(wanted))
        return _Resource(kind, name, wanted, retention, present)

    def _put(self, resource: _Resource) -> Change:
        kind, name, wanted, present = resource.kind, resource.name, resource.wanted, resource.present
        if resource.is_right:
            return Change(kind, name, "unchanged")
        if not self._dry_run:
            self._call("PUT", _PATHS[kind].format(name), wanted)
        if present is None:
            return Change(kind, name, "created")
        return Change(kind, name, "updated", differences(wanted, present))

    def _check_shorter(self, what: str, before: float, after: float) -> None:
        """Refuses to have documents deleted sooner, unless that is allowed."""
        if after < before and not self._allow_shorter_retention:
            kept = "for ever" if before == math.inf else f"for {before:g} days"
            raise SetupError(
                f"{what}: documents are kept {kept} there, and would be for {after:g} days",
                "Say --allow-shorter-retention if that is meant; what is deleted is gone.",
            )

    def holds(self, policies: Policies) -> Iterator[Change]:
        """Suspends the deletion of indices that hold documents under a legal hold, and gives those back that no longer do.

        Whatever lifecycle an index has, somebody's own included, or none: it is not replaced by one that keeps shorter.
        """
        try:
            found = segments(self._connection)
        except Unavailable as error:
            raise SetupError(error.what, error.hint) from None
        kept = exceptions(found, policies)
        lifecycles = self._lifecycles()
        changes: list[tuple[str, str, str]] = []
        for segment in found:
            days = kept.get(segment.name, days_of(segment.retention))
            wanted = f"audit-{HOLD if days is None else f'{days}d'}"
            present = lifecycles.get(segment.name, wanted)  # one that is not there was deleted a moment ago
            if present != wanted:
                self._check_shorter(segment.name, self._days_kept(present), math.inf if days is None else days)
                changes.append((segment.name, present, wanted))
        for name, present, wanted in changes:
            if not self._dry_run:
                self._call("PUT", f"/{name}/_settings", {"index.lifecycle.name": wanted})
            yield Change("backing_indices", name, "updated", f"lifecycle {present or 'none'} -> {wanted}")

    def _lifecycles(self) -> dict[str, str]:
        """The lifecycle policy of each backing index, by name; empty where it has none."""
        found = _decoded(self._call("GET", "/logs-audit.*/_settings/index.uuid,index.lifecycle.name"))
        return {name: each["settings"]["index"].get("lifecycle", {}).get("name", "") for name, each in found.items()}

    def _days_kept(self, lifecycle: str) -> float:
        """How many days after its rollover an index of that lifecycle is deleted; without one, it is kept for ever."""
        if own := re.fullmatch(r"audit-(\d+)d", lifecycle):
            return int(own[1])
        if not lifecycle:
            return math.inf
        answer = self._call("GET", _PATHS["lifecycle_policies"].format(quote(lifecycle, safe="")), missing=True)
        if answer.status == HTTPStatus.NOT_FOUND:
            return math.inf
        return _kept_days(_stored("lifecycle_policies", lifecycle, _decoded(answer)))

    def rotate_keys(self, settings: ElasticsearchSettings) -> Iterator[Change]:
        """New keys in place of those in the files. The old ones stay good until :meth:`revoke_keys`.

        A running indexer takes the new key up when the cluster knows the old one no more, without losing a line: the files
        keep their owner, group and mode.
        """
        files = {"audit-writer": settings.writer_key_file, "audit-reader": settings.reader_key_file}
        keys = [
            (wanted, path) for name, wanted in index_templates.load("api_keys").items() if (path := files[name]) is not None
        ]
        for _, path in keys if not self._dry_run else ():
            _beside(path).unlink(missing_ok=True)
            _new_file(_beside(path), like=path)
        for wanted, path in keys:
            if not self._dry_run:
                self._make_key(_beside(path), wanted)
                _replace(path)
            yield Change("api_keys", f"{wanted['name']} in {path}", "replaced")

    def revoke_keys(self, settings: ElasticsearchSettings) -> Iterator[Change]:
        """Takes back every key of ours but those that stand in the files.

        Raises:
            ConfigurationError: a file is not named, or cannot be read: its key would be taken back too.
        """
        current = {_key_id(settings, side) for side in ("writer", "reader")}
        for name in sorted(wanted["name"] for wanted in index_templates.load("api_keys").values()):
            known = _decoded(self._call("GET", f"/_security/api_key?name={name}&active_only=true")).get("api_keys", [])
            old = [each["id"] for each in known if each["id"] not in current]
            if old and not self._dry_run:
                self._call("DELETE", "/_security/api_key", {"ids": old})
            for each in old:
                yield Change("api_keys", f"{name} {each}", "taken back")

    def _data_stream(self, name: str, changed_ms: float) -> Change:
        """A data stream that is there, and takes documents by templates as they were last changed."""
        answer = self._call("GET", f"/_data_stream/{name}", missing=True)
        if answer.status == HTTPStatus.NOT_FOUND:
            if not self._dry_run:
                self._call("PUT", f"/_data_stream/{name}")
            return Change("data_streams", name, "created")
        index = _decoded(answer)["data_streams"][0]["indices"][-1]["index_name"]
        settings = _decoded(self._call("GET", f"/{index}/_settings/index.creation_date"))
        if int(settings[index]["settings"]["index"]["creation_date"]) >= changed_ms:
            return Change("data_streams", name, "unchanged")
        if not self._dry_run:
            self._call("POST", f"/{name}/_rollover")
        return Change("data_streams", name, "rolled over")

    def _key(self, path: Path, wanted: Mapping[str, Any], settings: ElasticsearchSettings) -> Change:
        """The key in a file: checked if it is there, else made and written for its owner's eyes only."""
        name = f"{wanted['name']} in {path}"
        if path.exists():
            with_key = Connection(settings, api_key=read_secret(path))
            try:
                with_key.call("GET", "/_security/_authenticate")
            except Unavailable as error:
                raise SetupError(
                    error.what, f"If the key in {path} is no longer good, remove the file and run again."
                ) from None
            finally:
                with_key.close()
            return Change("api_keys", name, "unchanged")
        if not self._dry_run:
            _new_file(path)
            self._make_key(path, wanted)
        return Change("api_keys", name, "created")

    def _make_key(self, path: Path, wanted: Mapping[str, Any]) -> None:
        """A new key in an empty file, which does not outlive a failure."""
        made = ""
        try:
            with path.open("w") as file:
                answer = _decoded(self._call("POST", "/_security/api_key", wanted))
                made = answer["id"]
                file.write(f"{answer['encoded']}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            path.unlink()
            hint = f"The key {made} was made and is in no file: --revoke-old-keys takes it back." if made else ""
            raise SetupError(f"{path}: {error.strerror}", hint) from None
        except BaseException:
            path.unlink()
            raise

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, missing: bool = False) -> Answer:
        """One request; ``missing`` lets a 404 pass."""
        try:
            answer = self._connection.call(method, path, None if body is None else json.dumps(body).encode())
        except Unavailable as error:
            hint = "Credentials of an administrator are needed: --user and --password-file, or --api-key-file."
            refused = "401" in error.what or "403" in error.what
            raise SetupError(error.what, hint if refused else error.hint) from None
        if answer.ok or (missing and answer.status == HTTPStatus.NOT_FOUND):
            return answer
        hint = ""
        if "derived api keys" in answer.reason():
            hint = "Elasticsearch lets no API key make another: run this with --user and --password-file."
        raise SetupError(f"{self._connection.where}: {method} {path}: {answer.status} {answer.reason()}", hint)


def _new_file(path: Path, *, like: Path | None = None) -> None:
    """An empty file for its owner's eyes only; of the same owner and group as another one."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", "Its folder must exist and be writable.") from None
    try:
        there, wanted = os.fstat(file), os.fstat(file) if like is None else like.stat()
        if (there.st_uid, there.st_gid) != (wanted.st_uid, wanted.st_gid):
            os.fchown(file, wanted.st_uid, wanted.st_gid)
    except OSError as error:
        path.unlink()
        raise SetupError(f"{path}: cannot be given to the owner of {like}: {error.strerror}", "Run this as root.") from None
    finally:
        os.close(file)


def _beside(path: Path) -> Path:
    """Where a file is written that will replace another one."""
    return path.with_name(path.name + ".new")


def _replace(path: Path) -> None:
    """Puts the file beside it in the place of another one, for whoever could read that."""
    try:
        _beside(path).chmod(stat.S_IMODE(path.stat().st_mode))
        _beside(path).replace(path)
    except OSError as error:
        raise SetupError(f"{path}: cannot be replaced: {error.strerror}", f"The new key is in {_beside(path)}.") from None


def _key_id(settings: ElasticsearchSettings, side: str) -> str:
    """The id of the key that stands in a side's file."""
    key = key_of(settings, side)
    if key is None:
        raise ConfigurationError("no key files are named: every key would be taken back", "Name both in [elasticsearch].")
    try:
        return base64.b64decode(key, validate=True).decode().partition(":")[0]
    except ValueError:
        raise ConfigurationError(f"elasticsearch.{side}_key_file: holds no API key") from None


def _decoded(answer: Answer) -> dict[str, Any]:
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise SetupError(f"not an answer of Elasticsearch: {answer.body[:100]!r}")
    return value


def _stored(kind: str, name: str, answer: Mapping[str, Any]) -> Any:
    """The resource within the answer to its GET."""
    if kind == "component_templates":
        return answer["component_templates"][0]["component_template"]
    if kind == "index_templates":
        return answer["index_templates"][0]["index_template"]
    if kind == "lifecycle_policies":
        return {"policy": answer[name]["policy"]}
    return answer[name]


def _kept_days(policy: Mapping[str, Any]) -> float:
    """How many days after its rollover a policy has an index deleted; for ever, if it does not."""
    age = policy["policy"].get("phases", {}).get("delete", {}).get("min_age")
    if age is None:
        return math.inf
    match = re.fullmatch(r"(\d+)(d|h|m|s|ms)", str(age))
    return 0.0 if match is None else int(match[1]) * {"d": 1.0, "h": 1 / 24, "m": 1 / 1440, "s": 1 / 86400, "ms": 0.0}[match[2]]


def differences(wanted: Any, present: Any, at: str = "") -> str:
    """What differs, as a person reads it: ``path: there -> ours``, the first few."""
    return "; ".join(islice(_differing(wanted, present, at), DIFFERENCES_MAX))


def _differing(wanted: Any, present: Any, at: str) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(present, Mapping):
        for key in sorted({*wanted, *present} - _ADDED):
            if not same(wanted.get(key), present.get(key)):
                yield from _differing(wanted.get(key), present.get(key), f"{at}.{key}" if at else str(key))
    else:
        yield f"{at}: {_short(present)} -> {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "…"


def same(wanted: Any, present: Any) -> bool:
    """Whether the cluster's copy says what ours says: it writes settings as text, and adds what is empty or a default."""
    if isinstance(wanted, Mapping) and isinstance(present, Mapping):
        more = (value for key, value in present.items() if key not in wanted and key not in _ADDED)
        return not any(more) and all(same(value, present.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(present, list):
        return len(wanted) == len(present) and all(map(same, wanted, present))
    return bool(_plain(wanted) == _plain(present))


_ADDED: Final = frozenset(
    {
        "transient_metadata",
        "created_date_millis",
        "modified_date_millis",
        "created_date",
        "modified_date",
        "allow_custom_routing",
    }
)
"""What the cluster says of a resource besides what was put."""


def _plain(value: Any) -> Any:
    if value is None or value in ({}, []):
        return ""
    return str(value).lower() if isinstance(value, bool | int | float) else value
