"""The import into Kibana: what is sent, and what Kibana's answers mean. Against a real HTTP server."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import kibana
from indexer.setup.change import SetupError
from indexer.setup.kibana import KibanaSetup

Asked = tuple[str, str, dict[str, str], bytes]


@dataclass
class Kibana:
    """Takes an import, keeps rules, and answers as it is told."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    rules: dict[str, dict] = field(default_factory=dict)
    objects: dict[str, dict] = field(default_factory=dict)
    imported: dict = field(default_factory=lambda: {"success": True, "successCount": 19})
    status: int = 200

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict]:
        if self.status != 200:
            return self.status, {"message": "no"}
        if "/api/alerting/rule/" in path:
            name = path.rpartition("/")[2]
            if method == "GET":
                return (200, self.rules[name]) if name in self.rules else (404, {})
            self.rules[name] = json.loads(body)
            return 200, {}
        if path.endswith("/_export"):
            (wanted,) = json.loads(body)["objects"]
            found = self.objects.get(wanted["id"])
            return (200, found) if found else (400, {"message": "Error fetching objects to export"})
        if "/_import" in path:
            if self.imported["success"]:
                for each in map(json.loads, kibana.build().splitlines()):
                    self.objects[each["id"]] = {**each, "attributes": {**each["attributes"], "added": "by Kibana"}}
            return 200, self.imported
        return 200, {"status": {}}

    def imports(self) -> list[Asked]:
        return [each for each in self.asked if "/_import" in each[1]]


@pytest.fixture
def server() -> Iterator[Kibana]:
    state = Kibana()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            status, answer = state.answer(self.command, self.path, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the library's name
            del format, arguments

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True).start()
        state.url = f"http://127.0.0.1:{listening.server_address[1]}/s/security"
        yield state
        listening.shutdown()


def test_everything_is_imported_under_its_ids_and_rules_are_left_to_their_people(server: Kibana) -> None:
    server.url = server.url.removesuffix("/s/security")
    first = list(KibanaSetup(server.url, basic=("elastic", "secret")).run())
    ((method, path, headers, body),) = server.imports()
    assert (method, path) == ("POST", "/api/saved_objects/_import?overwrite=true")
    assert headers["kbn-xsrf"] == "true"
    assert headers["authorization"].startswith("Basic ")
    assert kibana.build() in body
    assert b'name="file"; filename="audit.ndjson"' in body
    assert {change.name: change.change for change in first if change.kind == "alert_rules"} == {
        "auditship-critical": "created",
        "auditship-silence": "created",
    }
    assert all("id" not in rule for rule in server.rules.values())
    server.rules["auditship-critical"]["actions"] = ["somebody's"]
    second = list(KibanaSetup(server.url, basic=("elastic", "secret")).run())
    assert {change.change for change in second} == {"unchanged"}
    assert len(server.imports()) == 1
    assert server.rules["auditship-critical"]["actions"] == ["somebody's"]


def test_an_object_that_somebody_changed_is_put_right_and_told(server: Kibana) -> None:
    list(KibanaSetup(server.url).run())
    view = server.objects["auditship-events"]["attributes"]
    view["fieldFormatMap"] = json.dumps(json.loads(view["fieldFormatMap"]), indent=4)  # the same, written otherwise
    server.objects["auditship-critical"]["attributes"]["title"] = "Mine"
    (changed,) = [change for change in KibanaSetup(server.url).run() if change.change != "unchanged"]
    assert (changed.name, changed.change) == ("search auditship-critical", "updated")
    assert changed.detail.startswith('title: "Mine" -> ')
    assert len(server.imports()) == 2


def test_a_space_is_part_of_the_address_and_a_key_is_sent_as_such(server: Kibana) -> None:
    list(KibanaSetup(server.url, api_key="abc").run())
    assert server.imports()[0][1].startswith("/s/security/api/saved_objects/_import")
    assert server.asked[0][2]["authorization"] == "ApiKey abc"


def test_a_password_is_sent_in_utf_8(server: Kibana) -> None:
    list(KibanaSetup(server.url, basic=("elastic", "pässwörd€")).run())
    scheme, _, credentials = server.asked[0][2]["authorization"].partition(" ")
    assert (scheme, base64.b64decode(credentials).decode()) == ("Basic", "elastic:pässwörd€")


def test_a_dry_run_only_looks(server: Kibana) -> None:
    assert {change.change for change in KibanaSetup(server.url, dry_run=True).run()} == {"created"}
    assert {path for method, path, *_ in server.asked if method != "GET"} == {"/s/security/api/saved_objects/_export"}
    assert not server.objects


def test_an_import_that_is_refused_in_part_is_told_with_kibana_s_reasons(server: Kibana) -> None:
    server.imported = {"success": False, "errors": [{"id": "auditship-map", "error": {"type": "unsupported_type"}}]}
    with pytest.raises(SetupError, match=r"auditship-map.*unsupported_type"):
        list(KibanaSetup(server.url).run())
    assert not server.rules


def test_wrong_credentials_and_a_wrong_address_are_told(server: Kibana) -> None:
    server.status = 403
    with pytest.raises(SetupError, match="403") as refused:
        list(KibanaSetup(server.url, basic=("elastic", "secret")).run())
    assert "administrator of Kibana" in str(refused.value)
    assert "secret" not in str(refused.value)
    with pytest.raises(SetupError, match=r"127\.0\.0\.1:9"):
        list(KibanaSetup("http://127.0.0.1:9").run())
