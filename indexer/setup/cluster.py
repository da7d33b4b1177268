"""Installs in Elasticsearch what the store counts on: the resources of ``index_templates/`` and the data streams.

Promises: every step looks first and changes only what differs, so a second run changes nothing; a dry run looks only. Data
streams that are older than a template's last change, in this run or one that broke off, are rolled over, so that it holds from
the next document on; what is stored already stays as it is. Nothing is ever deleted. A policy that would have documents deleted
sooner is refused before anything is changed.

Raises :class:`~indexer.setup.change.SetupError` naming the cluster, what was being done, and the remedy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import index_templates
from indexer.document import REJECTED
from indexer.organizations import HOLD, Policies
from indexer.retention import days_of, exceptions
from indexer.setup.administrator import Administrator, decoded
from indexer.setup.change import Change, SetupError, differences, same
from indexer.store.contract import Unavailable
from indexer.store.elasticsearch.bulk import data_stream
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
ANY_CLASS: Final = ""
_OF_A_CLASS: Final = frozenset({"lifecycle_policies", "index_templates"})
_TEMPLATES: Final = frozenset({"component_templates", "index_templates"})


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


class ClusterSetup:
    """One run.

    Args:
        administrator: asks the cluster.
        dry_run: look, change nothing.
        allow_shorter_retention: whether documents may come to be deleted sooner than they were going to be.
    """

    def __init__(self, administrator: Administrator, *, dry_run: bool = False, allow_shorter_retention: bool = False) -> None:
        self._administrator = administrator
        self._dry_run = dry_run
        self._allow_shorter_retention = allow_shorter_retention

    def run(self, classes: Iterable[str], gateways: Iterable[str]) -> Iterator[Change]:
        """Does everything, in an order in which each step finds what it needs; tells each step when it is done.

        Args:
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

    def _check_version(self) -> None:
        answer = self._administrator.call("GET", "/")
        version = decoded(answer).get("version", {}).get("number", "")
        if not version.partition(".")[0].isdigit() or int(version.partition(".")[0]) < VERSION_MIN:
            raise SetupError(
                f"{self._administrator.where} runs Elasticsearch {version or 'of an unknown version'}",
                f"auditship needs version {VERSION_MIN} or later.",
            )

    def _look(self, kind: str, name: str, wanted: Mapping[str, Any], retention: str) -> _Resource:
        """A resource as it is there; refuses to have a policy keep documents shorter."""
        answer = self._administrator.call("GET", _PATHS[kind].format(name), missing=True)
        present = None if answer.status == HTTPStatus.NOT_FOUND else _stored(kind, name, decoded(answer))
        if kind == "lifecycle_policies" and present is not None:
            self._check_shorter(name, _kept_days(present), _kept_days(wanted))
        return _Resource(kind, name, wanted, retention, present)

    def _put(self, resource: _Resource) -> Change:
        kind, name, wanted, present = resource.kind, resource.name, resource.wanted, resource.present
        if resource.is_right:
            return Change(kind, name, "unchanged")
        if not self._dry_run:
            self._administrator.call("PUT", _PATHS[kind].format(name), wanted)
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
            found = segments(self._administrator.connection)
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
                self._administrator.call("PUT", f"/{name}/_settings", {"index.lifecycle.name": wanted})
            yield Change("backing_indices", name, "updated", f"lifecycle {present or 'none'} -> {wanted}")

    def _lifecycles(self) -> dict[str, str]:
        """The lifecycle policy of each backing index, by name; empty where it has none."""
        found = self._administrator.get("/logs-audit.*/_settings/index.uuid,index.lifecycle.name")
        return {name: each["settings"]["index"].get("lifecycle", {}).get("name", "") for name, each in found.items()}

    def _days_kept(self, lifecycle: str) -> float:
        """How many days after its rollover an index of that lifecycle is deleted; without one, it is kept for ever."""
        if own := re.fullmatch(r"audit-(\d+)d", lifecycle):
            return int(own[1])
        if not lifecycle:
            return math.inf
        answer = self._administrator.call("GET", _PATHS["lifecycle_policies"].format(quote(lifecycle, safe="")), missing=True)
        if answer.status == HTTPStatus.NOT_FOUND:
            return math.inf
        return _kept_days(_stored("lifecycle_policies", lifecycle, decoded(answer)))

    def _data_stream(self, name: str, changed_ms: float) -> Change:
        """A data stream that is there, and takes documents by templates as they were last changed."""
        answer = self._administrator.call("GET", f"/_data_stream/{name}", missing=True)
        if answer.status == HTTPStatus.NOT_FOUND:
            if not self._dry_run:
                self._administrator.call("PUT", f"/_data_stream/{name}")
            return Change("data_streams", name, "created")
        index = decoded(answer)["data_streams"][0]["indices"][-1]["index_name"]
        settings = self._administrator.get(f"/{index}/_settings/index.creation_date")
        if int(settings[index]["settings"]["index"]["creation_date"]) >= changed_ms:
            return Change("data_streams", name, "unchanged")
        if not self._dry_run:
            self._administrator.call("POST", f"/{name}/_rollover")
        return Change("data_streams", name, "rolled over")


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
