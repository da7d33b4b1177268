"""Entries made by hand, for tests of stores."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from msgspec import Raw, structs
from msgspec.json import encode

from indexer.document import ECS, Actor, Audit, Document, Entry, Event, Http, Id, Log, Organization, Related, Resource, User

START_MS = 1_795_458_000_000
"""2026-11-23T18:20:00Z"""


def utc(time_ms: int) -> str:
    """RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def entry_id(number: int, time_ms: int) -> str:
    """An id in the form that documents have."""
    return base64.urlsafe_b64encode(time_ms.to_bytes(6, "big") + hashlib.blake2b(b"%d" % number, digest_size=10).digest())[
        :22
    ].decode()


def entry(number: int = 0, *, dataset: str = "web", retention: str = "30d", **changes: Any) -> Entry:
    """The ``number``-th event; a change such as ``user={"name": "Ada"}`` is laid over the document's JSON."""
    time_ms = changes.pop("time_ms", START_MS + number)
    person = f"Ada Lovelace {number % 50}"
    browser = (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
    )
    identity = changes.pop("id", entry_id(number, time_ms))
    severity = ("info", "warning", "critical")[number % 3]
    document = Document(
        timestamp=utc(time_ms),
        event=Event(
            id=identity,
            kind="event",
            created=utc(time_ms + 5),
            ingested=utc(time_ms + 40),
            original=f'{{"timestamp":"{utc(time_ms)}","actor":{{"type":"user","id":"u-{number % 50}"}},"n":{number}}}',
            hash=hashlib.sha256(b"%d" % number).hexdigest(),
            module="audit",
            dataset=f"audit.{dataset}",
            sequence=number * 500,
            action="project.update",
            category=("configuration",),
            type=("change",),
            outcome=("success", "failure")[number % 7 == 0],
            severity={"info": 21, "warning": 47, "critical": 99}[severity],
            reason="wrong password" if number % 7 == 0 else None,
        ),
        log=Log(offset=number * 500, file=Raw(b'{"path":"/var/log/gateways/web/web.jsonl"}'), level=severity),
        audit=Audit(
            gateway=dataset,
            stream="0123456789abcdef" * 2,
            severity=severity,
            actor=Actor("user", "Chrome on macOS"),
            location=f"Berlin, Berlin, 203.0.113.{number % 200}",
            resource=Resource("project", f"p-{number % 300}", f"Project {number % 300}"),
            extra=Raw(encode({"n": number, "team": f"team-{number % 5}"})),
            skew_ms=40,
        ),
        agent=Raw(b'{"id":"gw-1","name":"gw-1","type":"auditship"}'),
        host=Raw(b'{"name":"gw-1.example"}'),
        ecs=ECS,
        organization=Organization(f"org-{number % 3}", f"Organization {number % 3}"),
        user=User(f"u-{number % 50}", person, person, f"ada{number % 50}@example.com"),
        user_agent=Raw(
            encode(
                {
                    "original": browser,
                    "name": "Chrome",
                    "version": "142.0.0.0",
                    "os": {"name": "macOS", "version": "10.15.7", "full": "macOS 10.15.7"},
                    "device": {"name": "Mac"},
                }
            )
        ),
        source=Raw(
            encode(
                {
                    "ip": f"203.0.113.{number % 200}",
                    "geo": {
                        "city_name": "Berlin",
                        "region_name": "Berlin",
                        "region_iso_code": "DE-BE",
                        "country_name": "Germany",
                        "country_iso_code": "DE",
                        "continent_code": "EU",
                        "location": {"lat": 52.52, "lon": 13.405},
                        "timezone": "Europe/Berlin",
                    },
                    "as": {"number": 64496, "organization": {"name": "Example Net"}},
                }
            )
        ),
        http=Http(Id(f"req-{number}")),
        session=Id(f"s-{number % 400}"),
        related=Related((f"203.0.113.{number % 200}",), (f"u-{number % 50}", person)),
    )
    body = encode(document)
    if changes:
        body = encode(merged(decoded(body), changes))
    return Entry(identity, time_ms, dataset, retention, body)


def beyond(number: int = 0, quota: str = "1e999", **changes: Any) -> Entry:
    """The same with an extra field that is a number beyond a double."""
    made = entry(number, **changes)
    return structs.replace(made, body=made.body.replace(b'"extra":{', b'"extra":{"quota":%b,' % quota.encode()))


def decoded(body: bytes) -> dict[str, Any]:
    """A body's JSON."""
    value: dict[str, Any] = json.loads(body)
    return value


def merged(whole: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The changes laid over the whole, object by object; ``None`` takes a field away."""
    for name, value in changes.items():
        if value is None:
            whole.pop(name, None)
        elif isinstance(value, dict) and isinstance(whole.get(name), dict):
            merged(whole[name], value)
        else:
            whole[name] = value
    return whole
