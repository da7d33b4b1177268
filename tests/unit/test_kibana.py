"""What is imported into Kibana has the shape that it takes, names only fields there are, and dangles nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from kql import fields, to_query
from pydantic import BaseModel, ConfigDict, Field, Json

import kibana
from indexer.store.fields import type_of

ROOT = Path(kibana.__file__).parent
FREE = ("audit.extra.",)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Reference(Strict):
    type: str
    id: str
    name: str


class Asked(Strict):
    query: str
    language: Literal["kuery"]


class Source(Strict):
    query: Asked
    filter: list[Any]
    indexRefName: Literal["kibanaSavedObjectMeta.searchSourceJSON.index"] | None = None  # noqa: N815 - Kibana's name
    highlightAll: bool = False  # noqa: N815
    version: bool = False


class Meta(Strict):
    searchSourceJSON: Json[Source]  # noqa: N815


class DataView(Strict):
    title: str
    name: str
    timeFieldName: Literal["@timestamp"]  # noqa: N815
    fieldFormatMap: Json[dict[str, Any]]  # noqa: N815
    fieldAttrs: Json[dict[str, dict[Literal["customLabel"], str]]]  # noqa: N815
    sourceFilters: Json[list[Any]]  # noqa: N815
    runtimeFieldMap: Json[dict[str, Any]]  # noqa: N815
    fields: Json[list[Any]]


class Search(Strict):
    """Attributes of a search at version 10.5.0; others are refused by an import."""

    title: str
    description: str
    columns: list[str] = Field(min_length=1)
    sort: list[list[str]]
    grid: dict[str, Any]
    hideChart: bool  # noqa: N815
    isTextBasedQuery: Literal[False]  # noqa: N815
    timeRestore: bool  # noqa: N815
    breakdownField: str | None = None  # noqa: N815
    kibanaSavedObjectMeta: Meta  # noqa: N815


class Visualization(Strict):
    title: str
    description: str
    visState: Json[dict[str, Any]]  # noqa: N815
    uiStateJSON: Json[dict[str, Any]]  # noqa: N815
    version: Literal[1]
    kibanaSavedObjectMeta: Meta  # noqa: N815


class Map(Strict):
    title: str
    description: str
    layerListJSON: Json[list[dict[str, Any]]]  # noqa: N815
    mapStateJSON: Json[dict[str, Any]]  # noqa: N815
    uiStateJSON: Json[dict[str, Any]]  # noqa: N815


class Dashboard(Strict):
    title: str
    description: str
    panelsJSON: Json[list[dict[str, Any]]]  # noqa: N815
    optionsJSON: Json[dict[str, bool]]  # noqa: N815
    version: Literal[1]
    timeRestore: bool  # noqa: N815
    timeFrom: str  # noqa: N815
    timeTo: str  # noqa: N815
    refreshInterval: dict[str, Any]  # noqa: N815
    kibanaSavedObjectMeta: Meta  # noqa: N815


ATTRIBUTES = {
    "index-pattern": DataView,
    "search": Search,
    "visualization": Visualization,
    "map": Map,
    "dashboard": Dashboard,
}


class Saved(Strict):
    type: Literal["index-pattern", "search", "visualization", "map", "dashboard"]
    id: str = Field(pattern=r"^auditship-[a-z-]+$")
    attributes: dict[str, Any]
    references: list[Reference]
    coreMigrationVersion: Literal["8.8.0"]  # noqa: N815
    typeMigrationVersion: str  # noqa: N815
    managed: Literal[False]


BUILT = [json.loads(line) for line in (ROOT / "audit.ndjson").read_text().splitlines()]
SEARCHES = kibana.sources()["search"]


def test_the_built_file_is_what_its_source_says() -> None:
    assert (ROOT / "audit.ndjson").read_bytes() == kibana.build(), "build it again: make kibana"


@pytest.mark.parametrize("value", BUILT, ids=lambda value: value["id"])
def test_every_object_has_its_type_s_shape(value: dict[str, Any]) -> None:
    saved = Saved.model_validate(value)
    assert saved.typeMigrationVersion == kibana.VERSIONS[saved.type]
    ATTRIBUTES[saved.type].model_validate(saved.attributes)


def test_references_lead_to_objects_of_their_type_and_ids_are_each_one_s_own() -> None:
    types = {(each["type"], each["id"]) for each in BUILT}
    assert len(types) == len(BUILT)
    for each in BUILT:
        for reference in each["references"]:
            assert (reference["type"], reference["id"]) in types
        text = json.dumps(each["attributes"])
        names = {reference["name"] for reference in each["references"]}
        if each["type"] == "dashboard":
            panels = json.loads(each["attributes"]["panelsJSON"])
            assert names == {f"{panel['panelIndex']}:{panel['panelRefName']}" for panel in panels}
        else:
            assert all(name in text for name in names)


def test_what_people_look_for_is_there() -> None:
    titles = {each["title"] for each in SEARCHES}
    assert titles >= {
        "Critical", "Warning", "Info", "All activity", "Failed logins", "Unusual locations", "Privilege changes",
        "API tokens and CI", "Configuration changes", "Member and role administration", "Rejected lines",
    }  # fmt: skip
    for each in BUILT:
        if each["type"] == "search":
            assert each["attributes"]["sort"] == [["@timestamp", "desc"]]
            if each["id"] not in ("auditship-rejected", "auditship-agents"):
                assert each["attributes"]["breakdownField"] == "audit.severity"


def is_known(field: str) -> bool:
    return type_of(field) is not None or field.startswith(FREE) or field in ("source.geo.location", "event.original")


def test_every_field_is_in_the_mapping() -> None:
    named = {field for search in SEARCHES for field in fields(to_query(kibana.query_of(search, kibana.sources())))}
    for each in BUILT:
        attributes = each["attributes"]
        named |= set(attributes.get("columns", ())) | (
            {attributes["breakdownField"]} if "breakdownField" in attributes else set()
        )
        if each["type"] == "index-pattern":
            named |= set(json.loads(attributes["fieldAttrs"])) | set(json.loads(attributes["fieldFormatMap"]))
        if each["type"] == "visualization":
            named |= {agg["params"]["field"] for agg in json.loads(attributes["visState"])["aggs"] if "field" in agg["params"]}
        if each["type"] == "map":
            layers = json.loads(attributes["layerListJSON"])
            named |= {layer["sourceDescriptor"]["geoField"] for layer in layers if "geoField" in layer["sourceDescriptor"]}
    unknown = sorted(field for field in named if not is_known(field))
    assert not unknown
    assert len(named) > 20


def test_panels_lie_on_the_grid_and_on_no_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in kibana.sources()["panel"]:
        x, y, width, height = panel["grid"]
        assert 0 <= x < x + width <= 48
        cells = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
        assert not cells & taken
        taken |= cells


def test_alert_rules_ask_what_elasticsearch_understands_of_fields_there_are() -> None:
    rules = kibana.rules()
    assert [rule["id"] for rule in rules] == ["auditship-critical", "auditship-silence"]
    for rule in rules:
        assert rule["rule_type_id"] == ".es-query"
        asked = json.loads(rule["params"]["esQuery"])["query"]["bool"]
        terms = [next(iter(clause.values())) for clause in (*asked["filter"], *asked.get("must_not", ()))]
        assert all(is_known(field) for clause in terms for field in clause)
        assert type_of(rule["params"]["timeField"]) == "date"
