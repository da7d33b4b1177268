"""Promises of index_templates/ that can be seen without a server."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

import index_templates
from indexer.detect.alert import Alert
from indexer.document import Document
from indexer.store import fields

KINDS = ("component_templates", "lifecycle_policies", "index_templates", "roles", "api_keys")

# What fragments of ready JSON hold: user_agent, source, agent, host, ecs, file, changes, ci and extra in a document.
FRAGMENTS = {
    "agent.id",
    "agent.name",
    "agent.type",
    "agent.version",
    "audit.changes.field",
    "audit.changes.from",
    "audit.changes.to",
    "audit.ci.platform",
    "audit.ci.repository",
    "audit.ci.run_id",
    "audit.ci.run_url",
    "audit.extra",
    "ecs.version",
    "error.message",
    "host.name",
    "log.file.path",
    "source.address",
    "source.as.number",
    "source.as.organization.name",
    "source.geo.city_name",
    "source.geo.continent_code",
    "source.geo.country_iso_code",
    "source.geo.country_name",
    "source.geo.location",
    "source.geo.region_iso_code",
    "source.geo.region_name",
    "source.geo.timezone",
    "source.ip",
    "user_agent.device.name",
    "user_agent.name",
    "user_agent.original",
    "user_agent.os.full",
    "user_agent.os.name",
    "user_agent.os.version",
    "user_agent.version",
}
MISSING_IN_THE_TEST_NODE = {"constant_keyword", "wildcard", "match_only_text", "scaled_float"}


def of_struct(kind: type[msgspec.Struct], at: str = "") -> Iterator[str]:
    """The fields that a struct writes; those of ready JSON are left to FRAGMENTS."""
    hints = typing.get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        name = f"{at}{field.encode_name}"
        hint = hints[field.name]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        inner = next((each for each in options if isinstance(each, type) and issubclass(each, msgspec.Struct)), None)
        if inner is not None:
            yield from of_struct(inner, f"{name}.")
        elif msgspec.Raw not in options:
            yield name


def of_mapping(properties: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, value in properties.items():
        if "properties" in value:
            yield from of_mapping(value["properties"], f"{at}{name}.")
        else:
            yield f"{at}{name}", value


@pytest.fixture
def mapping() -> dict[str, Mapping[str, Any]]:
    whole = index_templates.load("component_templates")["audit-mappings"]["template"]["mappings"]
    assert whole["dynamic"] is False
    assert "dynamic_templates" not in whole
    return whole["runtime"] | dict(of_mapping(whole["properties"]))


def test_every_field_of_the_document_is_mapped_and_no_other(mapping: dict[str, Mapping[str, Any]]) -> None:
    assert set(mapping) == set(of_struct(Document)) | set(of_struct(Alert)) - {"source"} | FRAGMENTS


def test_types_are_those_that_the_fields_need(mapping: dict[str, Mapping[str, Any]]) -> None:
    types_of = {name: field["type"] for name, field in mapping.items()}
    assert {types_of[name] for name in ("@timestamp", "event.created", "event.ingested")} == {"date"}
    assert {types_of[name] for name in ("source.ip", "related.ip")} == {"ip"}
    assert {types_of[name] for name in ("event.severity", "event.sequence", "log.offset", "audit.skew_ms")} == {"long"}
    assert types_of["source.geo.location"] == "geo_point"
    assert types_of["audit.extra"] == "flattened"
    assert not MISSING_IN_THE_TEST_NODE & set(types_of.values())
    for name in ("event.original", "audit.rejection.bytes"):
        assert mapping[name] == {"type": "keyword", "index": False, "doc_values": False}, "kept, not paid for"


NAMES = {
    "agent.name", "audit.actor.label", "audit.alert.organizations", "audit.changes.field", "audit.ci.platform",
    "audit.ci.repository", "audit.location", "audit.resource.id", "audit.resource.name", "audit.resource.type",
    "audit.severity", "event.action", "event.outcome", "host.name", "organization.id", "organization.name", "related.user",
    "rule.name", "source.as.organization.name", "source.geo.city_name", "source.geo.country_name", "source.geo.region_name",
    "user.email", "user.full_name", "user.id", "user.name", "user_agent.name", "user_agent.original", "user_agent.os.name",
}  # fmt: skip


def test_names_compare_without_regard_to_case_and_every_keyword_is_bounded(mapping: dict[str, Mapping[str, Any]]) -> None:
    assert {name for name, field in mapping.items() if field.get("normalizer") == "lowercase"} == NAMES
    for name, field in mapping.items():
        if field["type"] == "keyword" and field.get("index", True) and name not in SELDOM_ASKED_FOR:
            assert field["ignore_above"] == 1024, name
    assert mapping["event.id"] == {"type": "keyword", "index": False}, "an id is exact, and sorted by"


COUNTED = {
    "audit.actor.type", "audit.gateway", "event.dataset", "event.kind", "event.type", "event.severity", "source.as.number",
    "source.geo.location", "source.geo.region_name", "user_agent.name", "user_agent.os.name",
}  # fmt: skip
SELDOM_ASKED_FOR = {
    "agent.type", "audit.skew_ms", "ecs.version", "event.hash", "event.module", "event.sequence", "log.level", "log.offset",
    "source.geo.continent_code", "source.geo.region_iso_code", "source.geo.timezone", "user_agent.device.name",
    "user_agent.os.full", "user_agent.os.version", "user_agent.version",
}  # fmt: skip


def test_what_has_few_values_is_kept_by_value_alone(mapping: dict[str, Mapping[str, Any]]) -> None:
    for name in COUNTED:
        assert mapping[name]["index"] is False, name
        assert mapping[name].get("doc_values", True), name
    for name in ("audit.location", "related.user", "user.full_name"):
        assert mapping[name].get("index", True), name
        assert mapping[name]["doc_values"] is False, name


def test_what_is_seldom_asked_for_costs_nothing_until_then_and_is_found_and_counted() -> None:
    whole = index_templates.load("component_templates")["audit-mappings"]["template"]["mappings"]
    assert set(whole["runtime"]) == SELDOM_ASKED_FOR
    assert not SELDOM_ASKED_FOR & set(dict(of_mapping(whole["properties"])))
    for name, field in whole["runtime"].items():
        assert set(field) == {"type"}, f"{name} is read from the document as it stands"
        assert fields.type_of(name) == field["type"]
        assert fields.limit_of(name) > 1024
    fields.check_counted(SELDOM_ASKED_FOR)


def test_a_word_without_a_field_is_looked_for_in_the_same_fields_by_both_stores_and_kibana() -> None:
    settings = index_templates.load("component_templates")["audit-settings"]["template"]["settings"]["index"]
    assert tuple(settings["query"]["default_field"]) == fields.ALL_TEXT
    assert not SELDOM_ASKED_FOR & set(fields.ALL_TEXT)


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_named_like_their_resources_and_say_who_made_them(kind: str) -> None:
    found = index_templates.load(kind)
    files = (Path(index_templates.__file__).parent / kind).glob("*.json")
    assert sorted(found) == sorted(file.stem for file in files) != []
    for name, resource in found.items():
        about = resource.get("_meta") or resource.get("metadata") or resource["policy"]["_meta"]
        assert about["managed_by"] == "auditship setup"
        assert about["description"]
        assert resource.get("name", name) == name


def test_another_class_is_the_same_in_every_place_where_the_files_say_30d() -> None:
    template = index_templates.load("index_templates", retention="400d")["logs-audit-400d"]
    assert template["index_patterns"] == ["logs-audit.*-400d"]
    assert template["template"]["settings"]["index"]["lifecycle"]["name"] == "audit-400d"
    policy = index_templates.load("lifecycle_policies", retention="400d")["audit-400d"]["policy"]
    assert policy["phases"]["delete"]["min_age"] == "400d"
    assert policy["phases"]["hot"]["actions"]["rollover"] == {"max_age": "1d", "max_primary_shard_size": "50gb"}
    assert "30d" not in repr((template, policy))


def test_the_writer_may_only_add_and_the_reader_may_only_read() -> None:
    for side, privileges in (("writer", ["create_doc", "auto_configure"]), ("reader", ["read", "view_index_metadata"])):
        role = index_templates.load("roles")[f"audit-{side}"]
        key = index_templates.load("api_keys")[f"audit-{side}"]["role_descriptors"][f"audit-{side}"]
        for granted in (role, key):
            assert granted["cluster"] == []
            assert granted["indices"] == [{"names": ["logs-audit.*"], "privileges": privileges}]


def test_templates_stand_above_fleet_s_and_keep_no_failure_store() -> None:
    for template in index_templates.load("index_templates").values():
        assert template["priority"] >= 500
        assert template["data_stream"] == {}
        assert template["template"]["data_stream_options"] == {"failure_store": {"enabled": False}}
        assert set(template["composed_of"]) == set(index_templates.load("component_templates"))
