"""Promises of index_templates/, on the real server: accepted as they are, and doing what they say."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from elasticsearch_node import Server
from sample_entries import decoded, entry

import index_templates
from indexer.settings import ElasticsearchSettings
from indexer.setup.change import same

STREAM = "logs-audit.web-30d"
DAY_MS = 86_400_000
DEADLINE_S = 30


@pytest.fixture
def server(elasticsearch_server: Server, elasticsearch_settings: ElasticsearchSettings) -> Server:
    """Set up, with empty data streams."""
    del elasticsearch_settings
    return elasticsearch_server


def simulated(server: Server) -> dict[str, Any]:
    """What a new backing index would be made from."""
    found: dict[str, Any] = server.request("POST", f"/_index_template/_simulate_index/{STREAM}")["template"]
    return found


def test_come_back_as_they_were_put(server: Server) -> None:
    for name, wanted in index_templates.load("component_templates").items():
        assert same(wanted, server.get(f"/_component_template/{name}")["component_templates"][0]["component_template"])
    for name, wanted in index_templates.load("index_templates").items():
        assert same(wanted, server.get(f"/_index_template/{name}")["index_templates"][0]["index_template"])
    for name, wanted in index_templates.load("lifecycle_policies").items():
        assert same(wanted["policy"], server.get(f"/_ilm/policy/{name}")[name]["policy"])
    for name, wanted in index_templates.load("roles").items():
        assert same(wanted, server.get(f"/_security/role/{name}")[name])


def test_ours_stand_above_the_built_in_templates_for_logs(server: Server) -> None:
    made = server.get(f"/_data_stream/{STREAM}")["data_streams"][0]
    assert (made["template"], made["ilm_policy"]) == ("logs-audit-30d", "audit-30d")
    settings = simulated(server)["settings"]["index"]
    assert settings["mode"] == "standard"
    assert settings["codec"] == "best_compression"
    assert settings["mapping"]["ignore_malformed"] == "false"
    assert settings["translog"]["durability"] == "request"


def test_an_unknown_field_adds_nothing_to_the_mapping(server: Server) -> None:
    before = server.get(f"/{STREAM}/_mapping")
    body = decoded(
        entry(0, made_up={"by": {"an": "attacker"}}, event={"made_up": 1}, audit={"extra": {"made": {"up": 1}}}).body
    )
    server.request("PUT", f"/{STREAM}/_create/1?refresh=true", body)
    assert server.get(f"/{STREAM}/_mapping") == before
    assert server.get(f"/{STREAM}/_search")["hits"]["hits"][0]["_source"] == body


def test_the_whole_document_fits_its_types(server: Server) -> None:
    server.request("PUT", f"/{STREAM}/_create/1?refresh=true", decoded(entry(7).body))
    found = server.request(
        "POST",
        f"/{STREAM}/_search",
        {
            "query": {
                "bool": {
                    "filter": [
                        {"geo_distance": {"distance": "5km", "source.geo.location": "52.5,13.4"}},
                        {"term": {"source.ip": "203.0.113.0/24"}},
                        {"range": {"event.severity": {"gte": 21}}},
                        {"range": {"@timestamp": {"gte": "2026-01-01"}}},
                        {"match": {"event.reason": "PASSWORD"}},
                        {"term": {"audit.extra.team": "team-2"}},
                    ]
                }
            }
        },
    )
    assert found["hits"]["total"]["value"] == 1
    assert "_ignored" not in found["hits"]["hits"][0]


def test_what_is_read_when_it_is_asked_for_is_found_and_counted_and_no_bare_word_reads_it(server: Server) -> None:
    body = decoded(entry(7).body)
    server.request("PUT", f"/{STREAM}/_create/1?refresh=true", body)

    def hits(query: dict[str, Any], **more: Any) -> dict[str, Any]:
        return server.request("POST", f"/{STREAM}/_search", {"query": query} | more)

    asked = [
        {"term": {"event.hash": body["event"]["hash"]}},
        {"range": {"log.offset": {"gte": 3500, "lte": 3500}}},
        {"wildcard": {"user_agent.version": "142.*"}},
        {"exists": {"field": "source.geo.timezone"}},
    ]
    found = hits({"bool": {"filter": asked}}, aggs={"by": {"terms": {"field": "user_agent.os.full"}}})
    assert found["hits"]["total"]["value"] == 1
    assert found["aggregations"]["by"]["buckets"] == [{"key": "macOS 10.15.7", "doc_count": 1}]
    for word, times in (("Project.Update", 1), (body["event"]["hash"], 0), ("142.0.0.0", 0)):
        assert hits({"multi_match": {"query": word, "lenient": True}})["hits"]["total"]["value"] == times, word


def test_an_index_is_kept_for_30_days_after_its_rollover_and_then_deleted(server: Server) -> None:
    def names() -> list[str]:
        return [each["index_name"] for each in server.get(f"/_data_stream/{STREAM}")["data_streams"][0]["indices"]]

    server.request("PUT", f"/{STREAM}/_create/1", decoded(entry(0).body))
    server.request("POST", f"/{STREAM}/_rollover")
    old, new = names()
    now_ms = time.time_ns() // 1_000_000

    def explained(index: str) -> dict[str, Any]:
        found: dict[str, Any] = server.get(f"/{index}/_ilm/explain")["indices"][index]
        return found

    def aged(days: int) -> None:
        server.request("PUT", f"/{old}/_settings", {"index.lifecycle.origination_date": now_ms - days * DAY_MS})

    aged(29)
    deadline = time.monotonic() + DEADLINE_S
    while explained(old).get("step") != "complete":
        assert time.monotonic() < deadline, explained(old)
        time.sleep(0.2)
    time.sleep(2.5)  # two polls of the lifecycle, in which nothing may happen
    assert names() == [old, new], explained(old)
    aged(31)
    deadline = time.monotonic() + DEADLINE_S
    while old in names():
        assert time.monotonic() < deadline, explained(old)
        time.sleep(0.2)
    assert names() == [new]
    assert explained(new)["policy"] == "audit-30d"


def test_the_policy_itself_rolls_an_index_over_when_its_time_has_come(server: Server) -> None:
    ours = index_templates.load("lifecycle_policies")["audit-30d"]
    rollover = ours["policy"]["phases"]["hot"]["actions"]["rollover"]
    assert rollover == {"max_age": "1d", "max_primary_shard_size": "50gb"}
    sooner = json.loads(json.dumps(ours).replace('"max_age": "1d"', '"max_age": "1s"'))
    assert sooner != ours
    server.request("PUT", "/_ilm/policy/audit-30d", sooner)
    try:
        server.request("PUT", f"/{STREAM}/_create/1", decoded(entry(0).body))
        deadline = time.monotonic() + DEADLINE_S
        while len(server.get(f"/_data_stream/{STREAM}")["data_streams"][0]["indices"]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        server.request("PUT", "/_ilm/policy/audit-30d", ours)
    server.request("POST", f"/{STREAM}/_refresh")
    assert server.get(f"/{STREAM}/_count")["count"] == 1, "kept: nothing is deleted before its time"
