"""Samples: events on which rules must fire, and events on which they must not; beside the rules, in ``*.samples.yml``.

A document of such a file is a case::

    why: twenty-three wrong passwords from one address within an hour
    fires: [failed-login-burst-address]      # must make an alert; others may
    quiet: [credential-stuffing]             # must make none
    reason: 23 failed logins from …          # optional: the sentence of the first of `fires`
    verified_domains: [example.com]          # optional: of the case's organisation
    events:
      - at: 5m                               # after the case's beginning; the line's own time
        repeat: 23                           # so many times; {n} in a value is 0, 1, 2 …
        every: 2m
        late: 2h                             # optional: arrives so much later
        gateway: web
        tags: [new_network]                  # optional: what enrichment would have added
        line: {action: authentication.login, status: failure, actor: {type: user, id: u-1}, ip: 203.0.113.9}

Lines need an ``action``; what else a line must have is filled in. They go the way of real lines: decoded, enriched, stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from auditship.block import BlockHeader
from auditship.clock import utc
from indexer.assemble import builder_of, places_of
from indexer.build import Block, Builder
from indexer.decode import decode_block
from indexer.detect.source import RuleError, documents, files
from indexer.document import REJECTED, Entry
from indexer.organizations import Policies, Policy
from indexer.settings import EnrichmentSettings

START_MS: Final = 1_795_392_000_000
"""2026-11-23T00:00:00Z: when the last case begins; each other one begins :data:`APART_MS` before the next."""
APART_MS: Final = 10 * 86_400_000
EVENTS_MAX: Final = 5_000
_KEYS: Final = {"why", "fires", "quiet", "reason", "verified_domains", "events"}
_EVENT_KEYS: Final = {"at", "repeat", "every", "late", "gateway", "tags", "line"}
_DURATION = re.compile(r"(\d{1,7})([smhd])")
_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class Case:
    """A case: its events as entries, from ``start_ms`` until before ``end_ms``."""

    file: Path
    number: int
    why: str
    fires: tuple[str, ...]
    quiet: tuple[str, ...]
    reason: str | None
    policy: Policy
    start_ms: int
    end_ms: int
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """Its place: file and number."""
        return f"{self.file.name}#{self.number}"

    def judged(self, alerts: Sequence[Entry]) -> list[str]:
        """What is wrong with the alerts of its events, in words; nothing, if nothing is."""
        reasons: dict[str, str] = {}
        for alert in alerts:
            document = orjson.loads(alert.body)
            reasons.setdefault(document["rule"]["id"], document["event"]["reason"])
        wrong = [f"{name} should have fired" for name in self.fires if name not in reasons]
        wrong += [f"{name} should have been quiet, but: {reasons[name]}" for name in self.quiet if name in reasons]
        said = reasons.get(self.fires[0]) if self.fires else None
        if self.reason is not None and said is not None and said != self.reason:
            wrong.append(f"{self.fires[0]} said {said!r}")
        return wrong


def load(folders: Sequence[Path]) -> list[Case]:
    """The cases of all files of samples in these folders, each at a time of its own.

    Raises:
        RuleError: a case is not as it should be; names the file and the case.
    """
    builder = builder_of(EnrichmentSettings(), places_of(EnrichmentSettings()), retention="30d")
    found = [(path, number, document) for path in _paths(folders) for number, document in enumerate(documents(path), 1)]
    return [
        _case((path, number), document, START_MS - (len(found) - at) * APART_MS, builder, f"org-sample-{at}")
        for at, (path, number, document) in enumerate(found)
    ]


def policies_of(cases: Sequence[Case]) -> Policies:
    """The policies of the cases' organisations."""
    return Policies(tuple(case.policy for case in cases), "30d")


def _paths(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from files(folder, samples=True)


def _case(place: tuple[Path, int], document: Mapping[str, Any], start_ms: int, builder: Builder, organization: str) -> Case:
    path, number = place
    where = f"{path}: case {number}"
    if unknown := document.keys() - _KEYS:
        raise RuleError(f"{where}: unknown key {min(unknown)!r}", f"Known are {', '.join(sorted(_KEYS))}.")
    try:
        policy = Policy(id=organization, verified_domains=tuple(document.get("verified_domains", ())))
        entries: list[Entry] = []
        end_ms = start_ms
        for event in document["events"]:
            for entry, last_ms in _entries(event, start_ms, builder, organization, len(entries)):
                entries.append(entry)
                end_ms = max(end_ms, last_ms)
                if len(entries) > EVENTS_MAX:
                    raise ValueError(f"more than {EVENTS_MAX} events")
        return Case(
            path, number, str(document.get("why", "")), tuple(document.get("fires", ())), tuple(document.get("quiet", ())),
            document.get("reason"), policy, start_ms, end_ms + 1, tuple(entries),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RuleError(f"{where}: {error!r}", "See docs/detections.md for what a case is made of.") from None


def _entries(
    event: Mapping[str, Any], start_ms: int, builder: Builder, organization: str, offset: int
) -> Iterator[tuple[Entry, int]]:
    if unknown := event.keys() - _EVENT_KEYS:
        raise ValueError(f"unknown key {min(unknown)!r} of an event")
    gateway = event.get("gateway", "web")
    for turn in range(event.get("repeat", 1)):
        time_ms = start_ms + _ms(event.get("at", "0s")) + turn * _ms(event.get("every", "1s"))
        arrived_ms = time_ms + _ms(event.get("late", "0s"))
        line = _filled(_numbered(event["line"], turn), organization, time_ms)
        data = orjson.dumps(line) + b"\n"
        header = BlockHeader(
            "samples", "samples", gateway, b"/samples", "0" * 32, offset + turn, len(data), 1, bytes(32), bytes(32), arrived_ms
        )
        decoded = next(iter(decode_block(header, data)))
        entry = builder.build(Block.of(header, sender="", now_ms=arrived_ms), decoded)
        if entry.dataset == REJECTED:
            raise ValueError(f"a line that is no event: {orjson.loads(entry.body)['audit']['rejection']['reason']}")
        if tags := event.get("tags"):
            body = orjson.loads(entry.body)
            body["tags"] = [*body.get("tags", ()), *tags]
            entry = Entry(entry.id, entry.time_ms, entry.dataset, entry.retention, orjson.dumps(body))
        yield entry, arrived_ms


def _filled(line: dict[str, Any], organization: str, time_ms: int) -> dict[str, Any]:
    """A line with what every line must have."""
    return {
        "timestamp": utc(time_ms),
        "organization": {"id": organization},
        "actor": {"type": "user", "id": "u-ada", "name": "Ada Lovelace", "email": "ada@example.com"},
        "resource": {"type": "organization", "id": organization},
        "status": "success",
        **line,
    }


def _numbered(value: Any, turn: int) -> Any:
    if isinstance(value, dict):
        return {key: _numbered(each, turn) for key, each in value.items()}
    if isinstance(value, list):
        return [_numbered(each, turn) for each in value]
    return value.replace("{n}", str(turn)) if isinstance(value, str) else value


def _ms(text: str) -> int:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no length of time: write 30s, 5m, 2h or 1d")
    return int(found[1]) * _UNITS_MS[found[2]]
