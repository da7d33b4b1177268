"""Kibana's saved objects, built from ``objects.toml``: a data view, searches, panels and a dashboard; and alert rules.

An import never goes back in version, so each object is written in the oldest shape that Kibana 8.8 and everything after it
still migrates. Ids are fixed and every reference is listed: importing again replaces, and nothing dangles.
"""

from __future__ import annotations

import json
import tomllib
from importlib.resources import files
from typing import Any, Final

CORE_VERSION: Final = "8.8.0"
VERSIONS: Final = {
    "index-pattern": "8.0.0",
    "search": "10.5.0",
    "visualization": "8.5.0",
    "map": "8.4.0",
    "dashboard": "8.9.0",
}
PREFIX: Final = "auditship-"
INDEX_REFERENCE: Final = "kibanaSavedObjectMeta.searchSourceJSON.index"
TOP_MAX: Final = 10
BUILT: Final = "audit.ndjson"

_Object = dict[str, Any]


def sources() -> dict[str, Any]:
    """``objects.toml``."""
    return tomllib.loads(files(__package__).joinpath("objects.toml").read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    """The alert rules, as Kibana's alerting API takes them; ``id`` belongs into the address."""
    folder = files(__package__).joinpath("rules")
    return [json.loads(each.read_text(encoding="utf-8")) for each in sorted(folder.iterdir(), key=lambda each: each.name)]


def build() -> bytes:
    """The file that Kibana imports: one object on each line."""
    return b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in objects(sources()))


def objects(source: dict[str, Any]) -> list[_Object]:
    """All saved objects, those that are referred to first."""
    view = source["data_view"]
    searches = [_search(each, source) for each in source["search"]]
    panels = [_panel(each, source) for each in source["panel"] if each["kind"] != "search"]
    return [_data_view(view), *searches, *panels, _dashboard(source)]


def query_of(search: dict[str, Any], source: dict[str, Any]) -> str:
    """A search's whole KQL."""
    query = str(search.get("query", ""))
    if search.get("own"):
        return query
    others = f"not ({source['own']['query']})"
    return f"({query}) and {others}" if query else others


def _object(kind: str, identity: str, attributes: dict[str, Any], references: list[dict[str, str]]) -> _Object:
    return {
        "type": kind,
        "id": identity,
        "attributes": attributes,
        "references": references,
        "coreMigrationVersion": CORE_VERSION,
        "typeMigrationVersion": VERSIONS[kind],
        "managed": False,
    }


def _data_view(view: dict[str, Any]) -> _Object:
    formats: dict[str, Any] = {}
    for field, values in view["lookups"].items():
        entries = [{"key": key, "value": value} for key, value in values.items()]
        formats[field] = {"id": "static_lookup", "params": {"lookupEntries": entries, "unknownKeyValue": ""}}
    for field, values in view["colors"].items():
        colors = [
            {"range": "-Infinity:Infinity", "regex": f"^{value}$", "text": text, "background": background}
            for value, (text, background) in values.items()
        ]
        formats[field] = {"id": "color", "params": {"fieldType": "string", "colors": colors}}
    return _object(
        "index-pattern",
        view["id"],
        {
            "title": view["title"],
            "name": view["name"],
            "timeFieldName": view["time"],
            "fieldFormatMap": _text(formats),
            "fieldAttrs": _text({field: {"customLabel": label} for field, label in view["labels"].items()}),
            "sourceFilters": "[]",
            "runtimeFieldMap": "{}",
            "fields": "[]",
        },
        [],
    )


def _source(query: str, **more: Any) -> dict[str, str]:
    """``kibanaSavedObjectMeta``: what is searched, as text within the object."""
    asked = {"query": {"query": query, "language": "kuery"}, "filter": [], "indexRefName": INDEX_REFERENCE, **more}
    return {"searchSourceJSON": _text(asked)}


def _refers(source: dict[str, Any], name: str = INDEX_REFERENCE) -> list[dict[str, str]]:
    return [{"type": "index-pattern", "id": source["data_view"]["id"], "name": name}]


def _search(search: dict[str, Any], source: dict[str, Any]) -> _Object:
    attributes: dict[str, Any] = {
        "title": f"Audit: {search['title']}",
        "description": search["description"],
        "columns": source["columns"][search.get("columns", "events")],
        "sort": [["@timestamp", "desc"]],
        "grid": {},
        "hideChart": False,
        "isTextBasedQuery": False,
        "timeRestore": False,
        "kibanaSavedObjectMeta": _source(query_of(search, source), highlightAll=True, version=True),
    }
    if not search.get("own"):
        attributes["breakdownField"] = "audit.severity"
    return _object("search", PREFIX + search["id"], attributes, _refers(source))


def _panel(panel: dict[str, Any], source: dict[str, Any]) -> _Object:
    make = {"histogram": _histogram, "top": _top, "map": _map}[panel["kind"]]
    return make(panel, source)


def _visualization(panel: dict[str, Any], source: dict[str, Any], kind: str, *, aggs: list[Any], params: Any) -> _Object:
    attributes = {
        "title": f"Audit: {panel['title']}",
        "description": "",
        "visState": _text({"title": panel["title"], "type": kind, "aggs": aggs, "params": params}),
        "uiStateJSON": "{}",
        "version": 1,
        "kibanaSavedObjectMeta": _source(query_of(panel, source)),
    }
    return _object("visualization", PREFIX + panel["id"], attributes, _refers(source))


def _agg(number: int, kind: str, schema: str, **params: Any) -> dict[str, Any]:
    return {"id": str(number), "enabled": True, "type": kind, "schema": schema, "params": params}


def _histogram(panel: dict[str, Any], source: dict[str, Any]) -> _Object:
    times = _agg(
        2, "date_histogram", "segment", field="@timestamp", useNormalizedEsInterval=True, interval="auto", min_doc_count=1
    )
    groups = _agg(3, "terms", "group", field=panel["field"], orderBy="1", order="desc", size=5)
    params = {
        "type": "histogram",
        "addLegend": True,
        "addTooltip": True,
        "addTimeMarker": False,
        "legendPosition": "right",
        "times": [],
        "grid": {"categoryLines": False},
        "labels": {"show": False},
        "thresholdLine": {"show": False, "value": 10, "width": 1, "style": "full", "color": "#E7664C"},
        "categoryAxes": [
            {
                "id": "CategoryAxis-1",
                "type": "category",
                "position": "bottom",
                "show": True,
                "scale": {"type": "linear"},
                "labels": {"show": True, "truncate": 100},
                "title": {},
                "style": {},
            }
        ],
        "valueAxes": [
            {
                "id": "ValueAxis-1",
                "name": "LeftAxis-1",
                "type": "value",
                "position": "left",
                "show": True,
                "scale": {"type": "linear", "mode": "normal"},
                "labels": {"show": True, "rotate": 0, "truncate": 100},
                "title": {"text": "Events"},
                "style": {},
            }
        ],
        "seriesParams": [
            {
                "show": True,
                "type": "histogram",
                "mode": "stacked",
                "data": {"id": "1", "label": "Events"},
                "valueAxis": "ValueAxis-1",
            }
        ],
    }
    return _visualization(panel, source, "histogram", aggs=[_agg(1, "count", "metric"), times, groups], params=params)


def _top(panel: dict[str, Any], source: dict[str, Any]) -> _Object:
    label = source["data_view"]["labels"][panel["field"]]
    terms = _agg(2, "terms", "bucket", field=panel["field"], orderBy="1", order="desc", size=TOP_MAX, customLabel=label)
    params = {
        "perPage": TOP_MAX,
        "showPartialRows": False,
        "showMetricsAtAllLevels": False,
        "showTotal": False,
        "totalFunc": "sum",
        "percentageCol": "",
    }
    return _visualization(panel, source, "table", aggs=[_agg(1, "count", "metric", customLabel="Events"), terms], params=params)


def _map(panel: dict[str, Any], source: dict[str, Any]) -> _Object:
    name = "layer_1_source_index_pattern"
    layers = [
        {
            "id": "base",
            "type": "EMS_VECTOR_TILE",
            "sourceDescriptor": {"type": "EMS_TMS", "isAutoSelect": True},
            "style": {"type": ""},
        },
        {
            "id": "events",
            "label": panel["title"],
            "type": "GEOJSON_VECTOR",
            "visible": True,
            "style": {"type": "VECTOR", "properties": {}},
            "sourceDescriptor": {
                "id": "events-grid",
                "type": "ES_GEO_GRID",
                "requestType": "point",
                "resolution": "COARSE",
                "geoField": panel["field"],
                "metrics": [{"type": "count"}],
                "applyGlobalQuery": True,
                "applyGlobalTime": True,
                "indexPatternRefName": name,
            },
        },
    ]
    attributes = {
        "title": f"Audit: {panel['title']}",
        "description": "",
        "layerListJSON": _text(layers),
        "mapStateJSON": _text({"zoom": 1.3, "center": {"lon": 0, "lat": 20}, "filters": []}),
        "uiStateJSON": _text({"isLayerTOCOpen": False, "openTOCDetails": []}),
    }
    return _object("map", PREFIX + panel["id"], attributes, _refers(source, name))


def _dashboard(source: dict[str, Any]) -> _Object:
    panels, references = [], []
    for number, panel in enumerate(source["panel"]):
        kind = {"search": "search", "map": "map"}.get(panel["kind"], "visualization")
        x, y, width, height = panel["grid"]
        panels.append(
            {
                "version": CORE_VERSION,
                "type": kind,
                "panelIndex": str(number),
                "panelRefName": f"panel_{number}",
                "gridData": {"x": x, "y": y, "w": width, "h": height, "i": str(number)},
                "embeddableConfig": {"enhancements": {}},
            }
        )
        references.append({"type": kind, "id": PREFIX + panel["id"], "name": f"{number}:panel_{number}"})
    attributes = {
        "title": source["dashboard"]["title"],
        "description": source["dashboard"]["description"],
        "panelsJSON": _text(panels),
        "optionsJSON": _text({"useMargins": True, "syncColors": False, "hidePanelTitles": False}),
        "version": 1,
        "timeRestore": True,
        "timeFrom": "now-24h",
        "timeTo": "now",
        "refreshInterval": {"pause": True, "value": 60000},
        "kibanaSavedObjectMeta": {"searchSourceJSON": _text({"query": {"query": "", "language": "kuery"}, "filter": []})},
    }
    return _object("dashboard", source["dashboard"]["id"], attributes, references)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
