"""Every saved search and alert rule, asked of a real Elasticsearch over events that are known."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest
from elasticsearch_node import Server
from kql import to_query
from sample_entries import entry
from stores import Store

import kibana
from indexer.document import Entry
from indexer.settings import ElasticsearchSettings
from indexer.store.contract import Verdict
from indexer.store.elasticsearch import ElasticsearchReader, ElasticsearchWriter

SOURCE = kibana.sources()
SEARCHES = {each["id"]: each for each in SOURCE["search"]}


def event(number: int, action: str, category: str = "configuration", **changes: Any) -> Entry:
    severity = changes.pop("severity", "info")
    outcome = changes.pop("outcome", "success")
    actor = changes.pop("actor", "user")
    return entry(
        number,
        event={"action": action, "category": [category], "outcome": outcome},
        audit={"severity": severity, "actor": {"type": actor}},
        **changes,
    )


EVENTS = [
    event(0, "project.read", "api"),
    event(1, "project.update", severity="warning"),
    event(2, "authentication.login", "authentication", severity="critical", outcome="failure"),
    event(3, "authentication.login", "authentication"),
    event(4, "role.assign", "iam", severity="warning"),
    event(5, "permission.update", "iam", severity="warning", outcome="failure"),
    event(6, "member.invite", "iam", severity="warning"),
    event(7, "api_token.create", "iam", severity="warning"),
    event(8, "application.deploy", actor="api_token", severity="info"),
    event(9, "application.deploy", actor="service", outcome="failure", severity="warning"),
    event(10, "project.read", "api", tags=["new_country"]),
    event(11, "project.read", "api", tags=["truncated"]),
    event(12, "privilege.escalate", "iam", severity="critical"),
    event(13, "invitation.revoke", "iam", severity="warning"),
    entry(14, dataset="rejected", event={"kind": "pipeline_error", "action": None, "category": None}, audit={"severity": None}),
    entry(15, dataset="agent", event={"action": "agent.heartbeat", "category": ["process"]}, audit={"severity": "info"}),
    entry(16, dataset="agent", event={"action": "agent.gap", "category": ["process"]}, audit={"severity": "critical"}),
    entry(17, dataset="alert", event={"kind": "alert", "action": "role.assign"}, audit={"severity": "critical"}),
]
EXPECTED = {
    "critical": {2, 12},
    "warning": {1, 4, 5, 6, 7, 9, 13},
    "info": {0, 3, 8, 10, 11},
    "all": set(range(14)),
    "failed-logins": {2},
    "unusual-locations": {10},
    "privilege-changes": {4, 5, 12},
    "tokens-and-ci": {7, 8, 9},
    "configuration": {1, 8, 9},
    "members-and-roles": {4, 6, 13},
    "rejected": {14},
    "agents": {15, 16},
}
RULES = {"auditship-critical": {2, 12, 16}, "auditship-silence": {15}}


@pytest.fixture
def server(elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings) -> Server:
    """The cluster with these events."""
    with closing(ElasticsearchReader(elasticsearch_settings)) as reader:
        store = Store(lambda: ElasticsearchWriter(elasticsearch_settings), reader, lambda: None)
        assert set(store.append(EVENTS)) == {Verdict.CREATED}
    elasticsearch_server.request("POST", "/logs-audit.*/_refresh")
    return elasticsearch_server


def found(server: Server, query: dict[str, Any], index: str = "logs-audit.*-*") -> set[int]:
    answer = server.request("POST", f"/{index}/_search", {"query": query, "size": 100, "_source": ["event.sequence"]})
    return {hit["_source"]["event"]["sequence"] // 500 for hit in answer["hits"]["hits"]}


def test_saved_searches_find_what_they_say_and_nothing_else(server: Server) -> None:
    assert {name: found(server, to_query(kibana.query_of(each, SOURCE))) for name, each in SEARCHES.items()} == EXPECTED


def test_panels_count_what_they_say(server: Server) -> None:
    (failures,) = [panel for panel in SOURCE["panel"] if panel["id"] == "failures"]
    assert found(server, to_query(kibana.query_of(failures, SOURCE))) == {2, 5, 9}


def test_alert_rules_count_what_they_say(server: Server) -> None:
    counted = {}
    for rule in kibana.rules():
        query = json.loads(rule["params"]["esQuery"])["query"]
        counted[rule["id"]] = found(server, query, ",".join(rule["params"]["index"]))
    assert counted == RULES
