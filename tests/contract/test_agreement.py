"""Random queries find the same in both stores."""

from __future__ import annotations

import random
import time

import pytest
from elasticsearch_node import Server
from sample_entries import START_MS, entry, utc
from stores import Store

from auditship.clock import now_ms
from indexer.settings import ElasticsearchSettings
from indexer.store.contract import Query
from indexer.store.elasticsearch import ElasticsearchReader, ElasticsearchWriter
from indexer.store.embedded import EmbeddedReader, EmbeddedWriter

QUERIES = 300
HOUR_MS = 3_600_000
VALUES = {
    "user.name": ["ada*", "ADA*", "*lace?3", '"Ada Lovelace 3"', "Ada", "*", "nobody"],
    "user.email": ["ada1@example.com", "*@EXAMPLE.com", "[a TO ada3@example.com]"],
    "event.action": ["project.update", "PROJECT.*", "project"],
    "event.outcome": ["failure", "(success OR failure)", "(NOT failure)"],
    "event.severity": ["47", ">=47", "<99", "[21 TO 47}", "{21 TO *]", "forty"],
    "event.reason": ["wrong", '"wrong password"', '"password wrong"', "pass*", "(wrong AND other)", "WRONG-thing"],
    "event.category": ["configuration", "conf*", "Configuration", "Conf*", "[CONF TO D]"],
    "event.kind": ["event", "EVENT"],
    "source.geo.country_iso_code": ["DE", "de", "D?", "d*", "[A TO Z]"],
    "http.request.id": ["req-7", "REQ-7"],
    "event.sequence": ["500", "[500 TO 2000]"],
    "audit.resource.id": ["p-1", "p\\-2", "[p-1 TO p-3]", "P-?"],
    "audit.location": ['"Berlin, Berlin, 203.0.113.4"', "Berlin*", "Berlin"],
    "audit.extra.team": ["team-1", "TEAM-1", "team-*", '"team-2"'],
    "audit.extra.n": ["3", "[2 TO 5]"],
    "audit.extra": ["team-1"],
    "source.ip": ["203.0.113.3", '"203.0.113.0/30"', "[203.0.113.2 TO 203.0.113.9]", "2001\\:db8\\:\\:7", "10.*", "nowhere"],
    "related.user": ["u-4", '"Ada Lovelace 4"'],
    "source.geo.city_name": ["berlin", "BER*"],
    "audit.actor.type": ["user", "us*", "(user OR service)"],
    "agent.type": ["auditship", "*"],
    "related.ip": ["203.0.113.4", '"203.0.113.0/30"', "[203.0.113.2 TO 203.0.113.9]"],
    "source.as.number": ["64496", ">1"],
    "@timestamp": [
        f"[{utc(START_MS + 4)} TO *]",
        f"<{utc(START_MS + 9).replace(':', chr(92) + ':')}",
        "2026-11-23",
        "[2026 TO 2027]",
        "[now-1d TO now]",
    ],
    "organization.id": ["org-1", "ORG-2"],
    "event.original": ["*"],
    "event.hash": ["*", "nothing"],
    "log.offset": ["500", ">1000"],
    "log.level": ["info", "INFO", "i*"],
    "event.created": ["2026-11-23", "[2026 TO 2027]", "<2026"],
    "user_agent.version": ["141", "1*", "*"],
    "source.geo.timezone": ["Europe*", "[A TO F]", "europe*"],
    "no.such.field": ["x", "*"],
    "_exists_": [
        "event.reason",
        "user.email",
        "source.geo",
        "no.such.field",
        "event.original",
        "event.created",
        "user_agent.version",
        "audit.skew_ms",
        "audit.extra.team",
        "audit.extra",
    ],
}
BARE = [
    "wrong",
    "password",
    "u-3",
    "org-1",
    '"Ada Lovelace 5"',
    "203.0.113.6",
    "project",
    "Berlin",
    "ada*",
    "*date",
    "p-2",
    '"chrome on macos"',
]


def a_query(chance: random.Random, depth: int = 0) -> str:
    """A query as a person might write it, or as nobody would."""
    kind = chance.random()
    if depth > 2 or kind < 0.45:
        if chance.random() < 0.25:
            return chance.choice(BARE)
        field = chance.choice(list(VALUES))
        return f"{field}:{chance.choice(VALUES[field])}"
    if kind < 0.55:
        return f"NOT {a_query(chance, 9)}"
    if kind < 0.65:
        return f"({a_query(chance, depth + 1)})"
    if kind < 0.72:
        return f"+{a_query(chance, 9)} -{a_query(chance, 9)} {a_query(chance, 9)}"
    if kind < 0.80:
        return " ".join(chance.choice(BARE) for _ in range(chance.randint(2, 4)))
    joint = chance.choice([" AND ", " OR ", " ", " AND NOT "])
    parts = [a_query(chance, depth + 1) for _ in range(chance.randint(2, 3))]
    return joint.join(f"({part})" if part.startswith(("NOT", "+")) else part for part in parts)


@pytest.mark.slow
def test_random_queries_find_the_same_in_both_stores(
    elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings, tmp_path: object
) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    chance = random.Random(seed)
    entries = [entry(n) for n in range(12)]
    entries += [
        entry(12, source={"ip": "2001:db8::7"}),
        entry(13, user={"email": None}),
        entry(14, source=None, audit={"extra": None}),
    ]
    entries += [entry(15, event={"reason": "Other wrong-doing"}), entry(16, audit={"resource": {"id": "x" * 2000}})]
    entries += [entry(17, time_ms=now_ms() - HOUR_MS)]  # the cluster's "now" is the wall clock, so the other store's is too
    embedded = Store(lambda: EmbeddedWriter(tmp_path, now_ms), EmbeddedReader(tmp_path, now_ms), lambda: None)  # type: ignore[arg-type]
    elastic = Store(
        lambda: ElasticsearchWriter(elasticsearch_settings),
        ElasticsearchReader(elasticsearch_settings),
        lambda: elasticsearch_server.request("POST", "/logs-audit.*/_refresh"),
    )
    for store in (embedded, elastic):
        store.append(entries)
    differ, some = {}, 0
    for _ in range(QUERIES):
        text = a_query(chance)
        found = [
            {hit.time_ms - START_MS for hit in store.reader.search(Query(text), limit=50).hits} for store in (embedded, elastic)
        ]
        some += 0 < len(found[0]) < len(entries)
        if found[0] != found[1]:
            differ[text] = found
        assert embedded.reader.count(Query(text)) == len(found[0]), text
    elastic.reader.close()
    assert not differ, f"seed {seed}: {differ}"
    assert some > QUERIES // 5, "queries that find everything or nothing show little"
