"""Promises of `auditship setup`, on the real server."""

from __future__ import annotations

import json
import os
import stat
import threading
import urllib.error
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from elasticsearch_node import Server

import index_templates
from auditship.errors import AuditshipError, ConfigurationError
from indexer.commands.setup import setup
from indexer.setup.change import SetupError

STREAM = "logs-audit.web-30d"


@pytest.fixture
def home(elasticsearch_server: Server, tmp_path: Path) -> Iterator[Path]:
    """A folder with a configuration and a password, and a cluster that knows nothing of us; set up again afterwards."""
    forget(elasticsearch_server)
    ca = f'ca_file = "{elasticsearch_server.ca}"\n' if elasticsearch_server.ca else ""
    (tmp_path / "indexer.toml").write_text(
        f'[store]\nkind = "elasticsearch"\n[elasticsearch]\nurls = ["{elasticsearch_server.urls[0]}"]\n'
        f'writer_key_file = "writer.key"\nreader_key_file = "reader.key"\n{ca}'
        f'[[agents]]\nname = "a"\ntoken_sha256 = "{"0" * 64}"\ngateways = ["web", "batch"]\n'
    )
    (tmp_path / "password").write_text(elasticsearch_server.password)
    (tmp_path / "password").chmod(0o600)
    yield tmp_path
    forget(elasticsearch_server)


def forget(server: Server) -> None:
    """Removes what setup installs."""
    paths = ["/_data_stream/logs-audit.*", "/_index_template/logs-audit-*", "/_component_template/audit-*"]
    paths += [f"/_security/role/{name}" for name in ("audit-reader", "audit-writer")]
    paths += [f"/_ilm/policy/audit-{each}" for each in ("30d", "400d")]
    for path in paths:
        try:
            server.request("DELETE", path)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != HTTPStatus.NOT_FOUND:
                raise


def run(home: Path, server: Server, *arguments: str) -> Result:
    command = ["--config", str(home / "indexer.toml"), "--user", server.user, "--password-file", str(home / "password")]
    return CliRunner().invoke(setup, [*command, *arguments], catch_exceptions=True)


def changes(result: Result) -> dict[str, str]:
    assert result.exception is None, result.exception
    told = json.loads(result.stdout)
    return {f"{each['kind']} {each['name']}": each["change"] for each in told["changes"]}


def test_the_first_run_installs_everything_and_the_second_changes_nothing(home: Path, elasticsearch_server: Server) -> None:
    first = changes(run(home, elasticsearch_server, "--json"))
    assert set(first.values()) == {"created"}
    assert {"data_streams logs-audit.batch-30d", "data_streams logs-audit.rejected-30d", "roles audit-writer"} <= first.keys()
    for name in ("writer.key", "reader.key"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    keys = {name: (home / name).read_bytes() for name in ("writer.key", "reader.key")}
    again = run(home, elasticsearch_server)
    assert again.exception is None
    assert again.stdout == f"nothing to change: all {len(first)} are as they should be\n"
    assert {name: (home / name).read_bytes() for name in keys} == keys


def test_a_dry_run_tells_all_and_changes_nothing(home: Path, elasticsearch_server: Server) -> None:
    told = changes(run(home, elasticsearch_server, "--dry-run", "--json"))
    assert set(told.values()) == {"created"}
    assert not (home / "writer.key").exists()
    assert elasticsearch_server.get("/_data_stream/logs-audit.*")["data_streams"] == []
    assert changes(run(home, elasticsearch_server, "--json")) == told


def test_a_dry_run_on_an_installed_cluster_tells_what_differs_and_touches_nothing(
    home: Path, elasticsearch_server: Server
) -> None:
    run(home, elasticsearch_server)
    whole = run(home, elasticsearch_server, "--dry-run")
    assert whole.stdout.startswith("nothing to change: all ")
    policy = elasticsearch_server.get("/_ilm/policy/audit-30d")["audit-30d"]["policy"]
    policy["phases"]["delete"]["min_age"] = "3d"
    elasticsearch_server.request("PUT", "/_ilm/policy/audit-30d", {"policy": policy})
    elasticsearch_server.request("DELETE", "/_data_stream/logs-audit.batch-30d")
    settings = {"template": {"settings": {"index": {"codec": "default"}}}}
    elasticsearch_server.request("PUT", "/_component_template/audit-settings", settings)
    before = everything(elasticsearch_server)
    told = changes(run(home, elasticsearch_server, "--dry-run", "--json"))
    assert {what: each for what, each in told.items() if each != "unchanged"} == {
        "component_templates audit-settings": "updated",
        "lifecycle_policies audit-30d": "updated",
        "data_streams logs-audit.batch-30d": "created",
        **{what: "rolled over" for what in told if what.startswith("data_streams") and "batch" not in what},
    }
    assert everything(elasticsearch_server) == before
    told_by_run = changes(run(home, elasticsearch_server, "--json"))
    assert told_by_run == told, "a dry run tells what a run does"


def everything(server: Server) -> list[object]:
    """What setup could change."""
    paths = (
        "/_component_template/audit-*",
        "/_index_template/logs-audit-*",
        "/_ilm/policy/audit-30d",
        "/_data_stream/logs-audit.*",
    )
    return [server.get(path) for path in paths]


def test_what_was_changed_by_hand_is_put_right_and_holds_for_new_documents(home: Path, elasticsearch_server: Server) -> None:
    run(home, elasticsearch_server)
    name = "audit-mappings"
    template = elasticsearch_server.get(f"/_component_template/{name}")["component_templates"][0]["component_template"]
    template["template"]["mappings"]["properties"]["added"] = {"type": "keyword"}
    elasticsearch_server.request("PUT", f"/_component_template/{name}", {"template": template["template"]})
    policy = elasticsearch_server.get("/_ilm/policy/audit-30d")["audit-30d"]["policy"]
    policy["phases"]["delete"]["min_age"] = "3d"
    elasticsearch_server.request("PUT", "/_ilm/policy/audit-30d", {"policy": policy})
    told = {
        what: change for what, change in changes(run(home, elasticsearch_server, "--json")).items() if change != "unchanged"
    }
    assert told.pop(f"component_templates {name}") == "updated"
    assert told.pop("lifecycle_policies audit-30d") == "updated"
    assert set(told.values()) == {"rolled over"}
    assert f"data_streams {STREAM}" in told
    assert len(elasticsearch_server.get(f"/_data_stream/{STREAM}")["data_streams"][0]["indices"]) == 2
    assert set(changes(run(home, elasticsearch_server, "--json")).values()) == {"unchanged"}


def test_a_run_that_broke_off_before_the_rollovers_is_made_good(home: Path, elasticsearch_server: Server) -> None:
    run(home, elasticsearch_server)
    elasticsearch_server.request("POST", f"/{STREAM}/_rollover")
    template = elasticsearch_server.get("/_component_template/audit-mappings")["component_templates"][0]["component_template"]
    ours = {"template": template["template"], "_meta": template["_meta"]}
    for each in (ours | {"version": 1}, ours):
        elasticsearch_server.request("PUT", "/_component_template/audit-mappings", each)
    elasticsearch_server.request("POST", "/logs-audit.cli-30d/_rollover")
    told = {
        what: change for what, change in changes(run(home, elasticsearch_server, "--json")).items() if change != "unchanged"
    }
    assert set(told.values()) == {"rolled over"}
    assert f"data_streams {STREAM}" in told
    assert "data_streams logs-audit.cli-30d" not in told, "made since"
    assert set(changes(run(home, elasticsearch_server, "--json")).values()) == {"unchanged"}


def test_what_would_keep_shorter_is_refused_before_anything_is_changed(home: Path, elasticsearch_server: Server) -> None:
    run(home, elasticsearch_server)
    policy = elasticsearch_server.get("/_ilm/policy/audit-30d")["audit-30d"]["policy"]
    policy["phases"]["delete"]["min_age"] = "90d"
    elasticsearch_server.request("PUT", "/_ilm/policy/audit-30d", {"policy": policy})
    settings = {"template": {"settings": {"index": {"codec": "default"}}}}
    elasticsearch_server.request("PUT", "/_component_template/audit-settings", settings)
    before = everything(elasticsearch_server)
    assert isinstance(run(home, elasticsearch_server).exception, SetupError)
    assert everything(elasticsearch_server) == before


def test_another_retention_class_gets_a_policy_and_template_of_its_own(home: Path, elasticsearch_server: Server) -> None:
    run(home, elasticsearch_server)
    (home / "organizations.toml").write_text('[[organization]]\nid = "bank-*"\nretention = "400d"\n')
    with (home / "indexer.toml").open("a") as file:
        file.write('[enrichment]\norganizations = "organizations.toml"\n')
    assert set(changes(run(home, elasticsearch_server, "--json")).values()) == {"created", "unchanged"}, (
        "others stay as they are"
    )
    assert set(changes(run(home, elasticsearch_server, "--json")).values()) == {"unchanged"}
    policy = elasticsearch_server.get("/_ilm/policy/audit-400d")["audit-400d"]["policy"]
    assert policy["phases"]["delete"]["min_age"] == "400d"
    assert policy["phases"]["hot"]["actions"]["rollover"]["max_age"] == "1d"
    for retention in ("30d", "400d"):
        made = elasticsearch_server.get(f"/_data_stream/logs-audit.web-{retention}")["data_streams"][0]
        assert (made["template"], made["ilm_policy"]) == (f"logs-audit-{retention}", f"audit-{retention}")


def test_the_files_can_be_put_by_hand(home: Path, elasticsearch_server: Server) -> None:
    folder = Path(index_templates.__file__).parent
    for kind, path in (
        ("component_templates", "/_component_template/"),
        ("lifecycle_policies", "/_ilm/policy/"),
        ("index_templates", "/_index_template/"),
        ("roles", "/_security/role/"),
    ):
        for file in sorted((folder / kind).glob("*.json")):
            elasticsearch_server.request("PUT", path + file.stem, json.loads(file.read_text()))
    told = changes(run(home, elasticsearch_server, "--json"))
    assert {change for what, change in told.items() if what.split()[0] not in {"data_streams", "api_keys"}} == {"unchanged"}


@pytest.mark.parametrize("name", ["writer.key", "reader.key"])
def test_a_key_file_that_is_no_longer_good_is_named(home: Path, elasticsearch_server: Server, name: str) -> None:
    (home / name).write_text("bm9ib2R5Om5vdGhpbmc=\n")
    (home / name).chmod(0o600)
    result = run(home, elasticsearch_server)
    assert isinstance(result.exception, SetupError)
    assert name in str(result.exception)
    assert "remove the file" in str(result.exception)


def test_an_api_key_installs_all_but_the_keys_and_says_so(home: Path, elasticsearch_server: Server) -> None:
    made = elasticsearch_server.request("POST", "/_security/api_key", {"name": "administrator"})
    (home / "admin.key").write_text(made["encoded"])
    (home / "admin.key").chmod(0o600)
    command = ["--config", str(home / "indexer.toml"), "--api-key-file", str(home / "admin.key")]
    result = CliRunner().invoke(setup, command)
    assert isinstance(result.exception, SetupError)
    assert "--user and --password-file" in result.exception.hint
    assert not (home / "reader.key").exists()
    assert elasticsearch_server.get(f"/_data_stream/{STREAM}")["data_streams"]


def test_wrong_credentials_are_told_without_them(home: Path, elasticsearch_server: Server) -> None:
    (home / "password").write_text("hunter2-hunter2")
    result = run(home, elasticsearch_server)
    assert isinstance(result.exception, SetupError)
    assert "401" in result.exception.what
    assert "administrator" in result.exception.hint
    assert "hunter2" not in str(result.exception)


def test_a_cluster_that_cannot_be_reached_is_named(home: Path, elasticsearch_server: Server) -> None:
    text = (home / "indexer.toml").read_text().replace(elasticsearch_server.urls[0], "http://127.0.0.1:9")
    (home / "indexer.toml").write_text(text)
    result = run(home, elasticsearch_server)
    assert isinstance(result.exception, AuditshipError)
    assert "http://127.0.0.1:9" in result.exception.what
    assert "urls" in result.exception.hint


def test_a_password_in_an_address_is_refused_and_not_shown(home: Path, elasticsearch_server: Server) -> None:
    text = (home / "indexer.toml").read_text().replace("://", "://elastic:hunter2@")
    (home / "indexer.toml").write_text(text)
    result = run(home, elasticsearch_server)
    assert isinstance(result.exception, ConfigurationError)
    assert "hunter2" not in str(result.exception)


@pytest.mark.parametrize(("version", "told"), [("8.19.3", "8.19.3"), ("garbage", "garbage")])
def test_an_older_cluster_is_refused(home: Path, elasticsearch_server: Server, version: str, told: str) -> None:
    class Old(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"version": {"number": version}, "tagline": "You Know, for Search"}).encode()
            self.send_response(200)
            self.send_header("X-Elastic-Product", "Elasticsearch")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Old) as old:
        thread = threading.Thread(target=old.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{old.server_port}"
        text = (home / "indexer.toml").read_text().replace(elasticsearch_server.urls[0], url)
        (home / "indexer.toml").write_text(text)
        result = run(home, elasticsearch_server)
        old.shutdown()
        thread.join()
    assert isinstance(result.exception, SetupError)
    assert told in result.exception.what
    assert "version 9" in result.exception.hint
    assert url in result.exception.what


def test_no_password_is_asked_for_where_nobody_can_answer(home: Path) -> None:
    environment = {name: "" for name in os.environ if name.startswith("ELASTICSEARCH_")}
    result = CliRunner(env=environment).invoke(setup, ["--config", str(home / "indexer.toml"), "--user", "elastic"])
    assert isinstance(result.exception, AuditshipError)
    assert "--password-file" in result.exception.hint
